//! What the user wants of torrents: some files only, slowly, for so long, in turns.

use std::time::Duration;

use dunlin_torrent::command::{Command, Priority};
use dunlin_torrent::status::State;

use crate::bed::{Bed, Torrent};

const MIB: usize = 1 << 20;

#[test]
fn files_that_are_not_wanted_are_not_fetched_until_they_are() {
    let torrent = Torrent::new(9 * MIB, 32 << 10, 31);
    let mut bed = Bed::new();
    let seed = bed.seed(4 << 20, &torrent);
    let leech = bed.leech(4 << 20, &torrent);
    let info_hash = torrent.info_hash();
    let wish = |priority| Command::Prioritise {
        info_hash,
        files: vec![(1, priority)],
    };
    bed.command(leech, wish(Priority::Skip));
    bed.run_until(Duration::from_secs(60), |bed| bed.status(leech).state == State::Seeding);
    let first = torrent.meta.files[0].length;
    let done = bed.status(leech).done_bytes;
    assert!(done >= first && done < first + (32 << 10), "{done}");
    assert_eq!(bed.status(leech).downloaded, done, "not a byte more");
    // Who has all that it wants and who has all part.
    bed.run_for(Duration::from_secs(5));
    assert_eq!(bed.links_of(seed), 0);
    // A part is as good as a whole to those who lack it.
    bed.kill(seed);
    let other = bed.leech(4 << 20, &torrent);
    bed.command(other, wish(Priority::Skip));
    bed.run_until(Duration::from_secs(120), |bed| {
        bed.status(other).state == State::Seeding
    });
    assert_eq!(bed.status(leech).uploaded, done);

    // What was wished outlives a stop.
    bed.run_for(Duration::from_secs(30));
    bed.kill(leech);
    let saved = bed.restart(leech);
    assert_eq!(saved[0].priorities, [Priority::Normal, Priority::Skip]);
    bed.run_until(Duration::from_secs(60), |bed| bed.status(leech).state == State::Seeding);
    bed.restart(seed);
    bed.command(leech, wish(Priority::High));
    bed.run_until(Duration::from_secs(300), |bed| {
        bed.status(leech).done_bytes == torrent.content.len() as u64 && bed.status(leech).state == State::Seeding
    });
    bed.assert_content(leech, &torrent);
}

#[test]
fn rates_keep_to_their_limits_and_use_them() {
    let torrent = Torrent::new(4 * MIB, 64 << 10, 32);
    for (who, all) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut bed = Bed::new();
        let seed = bed.seed(8 << 20, &torrent);
        let leech = bed.leech(8 << 20, &torrent);
        let limit = Some(256 << 10);
        let limited = Command::Limit {
            info_hash: (!all).then(|| torrent.info_hash()),
            download: limit.filter(|_| who == 1),
            upload: limit.filter(|_| who == 0),
        };
        bed.command([seed, leech][who], limited);
        let time = bed.run_until_all_complete(&[leech], Duration::from_secs(60));
        assert!((14.0..20.0).contains(&time.as_secs_f64()), "{who} {all}: {time:?}");
    }
}

#[test]
fn a_torrent_that_gave_its_share_is_paused() {
    let torrent = Torrent::new(3 * MIB, 64 << 10, 33);
    let mut bed = Bed::new();
    let by_ratio = bed.node(4 << 20);
    bed.reconfigure(by_ratio, |config| config.ratio_goal = Some(1_000));
    bed.place(by_ratio, &torrent);
    bed.add(by_ratio, torrent.source(), |_| {});
    let leech = bed.leech(4 << 20, &torrent);
    bed.run_until_all_complete(&[leech], Duration::from_secs(60));
    bed.run_until(Duration::from_secs(5), |bed| {
        bed.status(by_ratio).state == State::Paused
    });

    let by_time = bed.node(4 << 20);
    bed.reconfigure(by_time, |config| config.seed_time_goal = Some(Duration::from_secs(20)));
    bed.place(by_time, &torrent);
    bed.add(by_time, torrent.source(), |_| {});
    let time = bed.run_until(Duration::from_secs(40), |bed| {
        bed.status(by_time).state == State::Paused
    });
    assert!(time >= Duration::from_secs(19), "{time:?}");
}

#[test]
fn who_has_no_turn_waits() {
    let torrent = Torrent::new(MIB, 64 << 10, 34);
    let mut bed = Bed::new();
    bed.seed(4 << 20, &torrent);
    let leech = bed.node(4 << 20);
    bed.reconfigure(leech, |config| config.max_downloads = Some(1));
    // The first to come has the turn until it is done; it never is, for nobody has it.
    let other = Torrent::new(MIB, 64 << 10, 35);
    bed.add(leech, other.source(), |_| {});
    bed.run_for(Duration::from_secs(3));
    bed.add(leech, torrent.source(), |_| {});
    bed.run_for(Duration::from_secs(30));
    assert!(!bed.completed(leech));
    assert_eq!(bed.links_of(leech), 0);
    bed.command(
        leech,
        Command::Pause {
            info_hash: other.info_hash(),
        },
    );
    bed.run_until_all_complete(&[leech], Duration::from_secs(60));
    bed.assert_content(leech, &torrent);
}
