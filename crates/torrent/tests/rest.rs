//! Torrents that have nothing to do: they cost nothing, and still do what is due on time.
#![allow(clippy::unwrap_used)]

mod sample;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dunlin_peer::{Input, Machine, Now, Output};
use dunlin_torrent::command::{AddTorrent, Command, Config, Done, Job, Source};
use dunlin_torrent::disk::{self, Opened};
use dunlin_torrent::resume::Resume;
use dunlin_torrent::session::Session;
use dunlin_torrent::tracker::{Request, Response};
use dunlin_torrent::{Bitfield, Metainfo};
use sample::{BORDERS, sample};

const TRACKER: &str = "http://tracker.example/announce";
const INTERVAL: Duration = Duration::from_secs(1800);

/// A session whose disk finds everything as it was saved.
struct Rig {
    session: Session,
    now: Now,
    announces: Vec<(Now, Request)>,
    saves: Vec<Resume>,
}

impl Rig {
    fn new() -> Self {
        let mut config = Config::new([7; 32]);
        config.resume_dir = Some(PathBuf::from("/resume"));
        let now = Now::from_unix_secs(1_000_000);
        Self {
            session: Session::new(config, now),
            now,
            announces: Vec::new(),
            saves: Vec::new(),
        }
    }

    fn give(&mut self, input: Input<dunlin_torrent::wire::Message, Command, Done>) {
        self.session.handle(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll() {
            let Output::Job(job) = output else { continue };
            let done = match job {
                Job::Disk(disk::Job::Open { metainfo, .. }) => Done::Disk(disk::Done::Opened {
                    info_hash: metainfo.info_hash,
                    result: Ok(Opened {
                        have: Bitfield::full(metainfo.piece_count()),
                        unknown: Vec::new(),
                    }),
                }),
                Job::Disk(disk::Job::SaveResume { resume, .. }) => {
                    let info_hash = resume.info_hash;
                    self.saves.push(*resume);
                    Done::Disk(disk::Done::ResumeSaved {
                        info_hash,
                        result: Ok(()),
                    })
                }
                Job::Announce(request) => {
                    self.announces.push((self.now, request.clone()));
                    let result = Ok(Response {
                        interval: INTERVAL,
                        min_interval: None,
                        seeders: None,
                        leechers: None,
                        peers: Vec::new(),
                        warning: None,
                        tracker_id: None,
                    });
                    Done::Announced { request, result }
                }
                other => panic!("{other:?}"),
            };
            self.session.handle(self.now, Input::Done(done));
        }
    }

    fn add(&mut self, metainfo: &Arc<Metainfo>, resume: Option<Resume>) {
        let mut metainfo = Metainfo::clone(metainfo);
        metainfo.trackers = vec![vec![TRACKER.to_owned()]];
        let mut add = AddTorrent::new(Source::Metainfo(Arc::new(metainfo)), PathBuf::from("/data"));
        add.resume = resume.map(Arc::new);
        self.give(Input::Command(Command::Add(Box::new(add))));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.carry_out();
        }
        self.now = end;
    }
}

#[test]
fn a_torrent_at_rest_announces_when_it_is_due() {
    let mut rig = Rig::new();
    let sample = sample(1, BORDERS);
    rig.add(&sample.metainfo, None);
    let begin = rig.now;
    rig.pass(INTERVAL * 3 + Duration::from_secs(30));
    let times: Vec<u64> = rig.announces.iter().map(|(at, _)| at.since(begin).as_secs()).collect();
    assert_eq!(times.len(), 4, "{times:?}");
    for (index, time) in times.iter().enumerate() {
        let due = index as u64 * INTERVAL.as_secs();
        assert!((due..due + 10).contains(time), "{times:?}");
    }
}

#[test]
fn a_word_of_the_user_wakes_it() {
    let mut rig = Rig::new();
    let sample = sample(2, BORDERS);
    rig.add(&sample.metainfo, None);
    rig.pass(Duration::from_secs(300));
    let saves = rig.saves.len();
    let info_hash = Some(sample.info_hash());
    rig.give(Input::Command(Command::Limit {
        info_hash,
        download: None,
        upload: Some(5),
    }));
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.saves.len(), saves + 1, "what was changed is saved soon");
    assert_eq!(rig.saves.last().unwrap().upload_limit, Some(5));
}

#[test]
fn what_is_as_it_was_saved_is_not_saved_again() {
    let sample = sample(3, BORDERS);
    let mut first = Rig::new();
    first.add(&sample.metainfo, None);
    assert_eq!(first.saves.len(), 1);
    let saved = first.saves.remove(0);
    let mut second = Rig::new();
    second.add(&sample.metainfo, Some(saved.clone()));
    second.pass(Duration::from_secs(100));
    second.give(Input::Command(Command::Stop));
    assert!(second.saves.is_empty(), "not at the start, nor at the end");
    let mut third = Rig::new();
    let less = Resume {
        have: Bitfield::new(saved.have.len()),
        ..saved
    };
    third.add(&sample.metainfo, Some(less));
    assert_eq!(third.saves.len(), 1, "the disk found more than was saved");
}
