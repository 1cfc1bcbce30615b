//! Stops, crashes and churn.

use std::time::Duration;

use dunlin_torrent::command::{Command, Event};
use dunlin_torrent::status::State;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bed::{Bed, Torrent};

const MIB: usize = 1 << 20;

#[test]
fn after_a_stop_midway_the_download_goes_on_where_it_was() {
    let torrent = Torrent::new(16 * MIB, 64 << 10, 11);
    let mut bed = Bed::new();
    bed.seed(2 << 20, &torrent);
    let leecher = bed.leech(2 << 20, &torrent);
    bed.run_until(Duration::from_secs(60), |bed| bed.status(leecher).pieces_done >= 100);
    bed.command(leecher, Command::Stop);
    bed.run_until(Duration::from_secs(5), |bed| {
        bed.nodes[leecher]
            .events
            .iter()
            .any(|event| matches!(event, Event::Stopped))
    });
    let before = bed.status(leecher).pieces_done;
    bed.kill(leecher);
    bed.nodes[leecher].events.clear();
    bed.restart(leecher);
    bed.run_until(Duration::from_secs(5), |bed| {
        bed.nodes[leecher]
            .events
            .iter()
            .any(|event| matches!(event, Event::Checked { .. }))
    });
    assert_eq!(bed.status(leecher).pieces_done, before, "all of it was believed");
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
    bed.assert_content(leecher, &torrent);
    let downloaded = bed.status(leecher).downloaded;
    assert!(downloaded < torrent.content.len() as u64 * 5 / 4, "{downloaded}");
}

#[test]
fn killed_at_any_moment_it_recovers_from_verified_pieces() {
    let torrent = Torrent::new(4 * MIB, 32 << 10, 12);
    for moment in 1..12u64 {
        let mut bed = Bed::new();
        bed.seed(1 << 20, &torrent);
        let leecher = bed.leech(1 << 20, &torrent);
        bed.run_for(Duration::from_millis(370 * moment));
        let before = bed.status(leecher).pieces_done;
        bed.kill(leecher);
        bed.nodes[leecher].events.clear();
        bed.run_for(Duration::from_secs(1));
        if bed.restart(leecher).is_empty() {
            // Killed before anything was saved: the user adds it again.
            bed.add(leecher, torrent.source(), |_| {});
        }
        bed.run_until(Duration::from_secs(5), |bed| {
            bed.nodes[leecher]
                .events
                .iter()
                .any(|event| matches!(event, Event::Checked { .. }))
        });
        assert!(
            bed.status(leecher).pieces_done >= before,
            "what was written is found again"
        );
        bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
        bed.assert_content(leecher, &torrent);
    }
}

#[test]
fn a_swarm_under_churn_completes() {
    let torrent = Torrent::new(12 * MIB, 64 << 10, 13);
    let mut bed = Bed::new();
    bed.seed(1 << 20, &torrent);
    let leechers: Vec<_> = (0..8).map(|_| bed.leech(1 << 20, &torrent)).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    for _ in 0..20 {
        bed.run_for(Duration::from_millis(1_500));
        let victim = leechers[rng.random_range(0..leechers.len())];
        if bed.nodes[victim].up {
            bed.kill(victim);
        } else if bed.restart(victim).is_empty() {
            bed.add(victim, torrent.source(), |_| {});
        }
    }
    for &node in &leechers {
        if !bed.nodes[node].up && bed.restart(node).is_empty() {
            bed.add(node, torrent.source(), |_| {});
        }
    }
    bed.run_until_all_complete(&leechers, Duration::from_secs(600));
    for &node in &leechers {
        bed.assert_content(node, &torrent);
    }
}

#[test]
fn a_lost_seed_is_found_again_when_it_returns() {
    let torrent = Torrent::new(4 * MIB, 64 << 10, 14);
    let mut bed = Bed::new();
    let seed = bed.seed(1 << 20, &torrent);
    let addr = bed.nodes[seed].addr;
    let leecher = bed.node(1 << 20);
    bed.add(leecher, torrent.source(), |add| add.peers.push(addr));
    bed.run_until(Duration::from_secs(20), |bed| bed.status(leecher).pieces_done >= 10);
    bed.kill(seed);
    bed.run_for(Duration::from_secs(60));
    assert!(!bed.completed(leecher));
    bed.restart(seed);
    let time = bed.run_until_all_complete(&[leecher], Duration::from_secs(100));
    assert!(time < Duration::from_secs(45), "{time:?}");
}

#[test]
fn pause_resume_recheck_and_remove_do_what_they_say() {
    let torrent = Torrent::new(4 * MIB, 64 << 10, 15);
    let info_hash = torrent.info_hash();
    let mut bed = Bed::new();
    bed.seed(1 << 20, &torrent);
    let leecher = bed.leech(1 << 20, &torrent);
    bed.run_until(Duration::from_secs(20), |bed| bed.status(leecher).pieces_done >= 10);

    bed.command(leecher, Command::Pause { info_hash });
    bed.run_for(Duration::from_secs(2));
    let paused = bed.status(leecher);
    assert_eq!((paused.state, bed.links_of(leecher)), (State::Paused, 0));
    bed.run_for(Duration::from_secs(30));
    assert_eq!(bed.status(leecher).pieces_done, paused.pieces_done);

    bed.command(leecher, Command::Resume { info_hash });
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));

    // Somebody damages a file behind our back.
    let file = bed.nodes[leecher].dir.join("files/content/a");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    bed.nodes[leecher].events.clear();
    bed.command(leecher, Command::Recheck { info_hash });
    bed.run_until(Duration::from_secs(5), |bed| {
        let all_but_one = torrent.meta.piece_count() - 1;
        bed.nodes[leecher]
            .events
            .iter()
            .any(|event| matches!(event, Event::Checked { have, .. } if *have == all_but_one))
    });
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
    bed.assert_content(leecher, &torrent);

    bed.command(
        leecher,
        Command::Remove {
            info_hash,
            delete_files: true,
        },
    );
    bed.run_for(Duration::from_secs(2));
    assert!(
        bed.nodes[leecher]
            .events
            .iter()
            .any(|event| matches!(event, Event::Removed { error: None, .. }))
    );
    assert!(!file.exists());
    let resume = bed.nodes[leecher].config.resume_dir.clone().unwrap();
    assert_eq!(std::fs::read_dir(resume).unwrap().count(), 0);
    assert_eq!(bed.links_of(leecher), 0);
}

#[test]
fn a_disk_error_stops_the_download_and_resume_tries_again() {
    let torrent = Torrent::new(2 * MIB, 64 << 10, 16);
    let info_hash = torrent.info_hash();
    let mut bed = Bed::new();
    bed.seed(1 << 20, &torrent);
    let leecher = bed.node(1 << 20);
    // A folder stands where the file belongs.
    let obstacle = bed.nodes[leecher].dir.join("files/content/a");
    std::fs::create_dir_all(&obstacle).unwrap();
    bed.add(leecher, torrent.source(), |_| {});
    bed.run_until(Duration::from_secs(20), |bed| {
        matches!(bed.status(leecher).state, State::Error(_))
    });
    assert!(
        bed.nodes[leecher]
            .events
            .iter()
            .any(|event| matches!(event, Event::Error { .. }))
    );
    std::fs::remove_dir(&obstacle).unwrap();
    bed.command(leecher, Command::Resume { info_hash });
    bed.run_until_all_complete(&[leecher], Duration::from_secs(60));
    bed.assert_content(leecher, &torrent);
}
