//! With no file descriptor left the listener waits without spinning and goes on when there are some again.
//! Alone in its file: the limit is the whole process's.

#![allow(clippy::unwrap_used)]

mod toy;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use toy::{Manners, Raw, config, start};

/// The processor time of this process, in clock ticks (100 a second on Linux).
fn ticks(stat: &File) -> u64 {
    let mut text = [0; 1024];
    let length = stat.read_at(&mut text, 0).unwrap();
    let text = std::str::from_utf8(&text[..length]).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let manners = Manners {
        echo: true,
        ..Manners::default()
    };
    let server = start(config(), manners);
    let stat = File::open("/proc/self/stat").unwrap();
    let before = getrlimit(Resource::Nofile);
    let limit = |current| {
        let maximum = before.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(64));
    // All descriptors go but one, which the client's own socket takes.
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.pop().unwrap();
    let mut client = Raw::connect(server.addr());
    client.send(b"hello");

    let spent = ticks(&stat);
    assert!(
        server.during(Duration::from_secs(1)).is_empty(),
        "nothing could be accepted"
    );
    let spent = ticks(&stat) - spent;
    assert!(spent < 30, "{spent} ticks in a second");

    limit(before.current);
    drop(hoard);
    assert_eq!(client.receive(), b"hello");
}
