//! A subscriber on ZeroMQ's own library, in a Python process.

use crate::child::{Child, bound_command, spawn};
use crate::setup;
use crate::wait::wait_until;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Subscribes at one address to the topics that follow, and prints a line for each message.
const SCRIPT: &str = r#"
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
for topic in sys.argv[2:]:
    socket.setsockopt_string(zmq.SUBSCRIBE, topic)
socket.connect("tcp://" + sys.argv[1])
while True:
    topic, body, number = socket.recv_multipart()
    print(topic.decode(), body.hex(), int.from_bytes(number, "little"), flush=True)
"#;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its topic.
    pub topic: String,
    /// Its body in hex.
    pub body: String,
    /// Its number among those of its topic.
    pub number: u32,
}

/// A running subscriber; dropped, it is killed.
#[derive(Debug)]
pub struct Subscriber {
    child: Child,
    seen: Arc<Mutex<Vec<Notice>>>,
    _folder: tempfile::TempDir,
}

impl Subscriber {
    /// Connects to `address` and subscribes to all topics that begin with one of `topics`.
    ///
    /// # Errors
    /// When Python or the package cannot be had.
    pub fn start(address: SocketAddr, topics: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("errors.log");
        let mut command = bound_command(setup::python_with_zmq()?);
        command.args(["-c", SCRIPT]).arg(address.to_string()).args(topics);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&log)?);
        let mut process = spawn(command)?;
        let output = BufReader::new(process.stdout.take().context("stdout is a pipe")?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut words = line.split(' ').map(str::to_owned);
                if let (Some(topic), Some(body), Some(number)) = (words.next(), words.next(), words.next()) {
                    let number = number.parse().unwrap_or(u32::MAX);
                    let notice = Notice { topic, body, number };
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
                }
            }
        });
        Ok(Self {
            child: Child::adopt("subscriber", process, &log),
            seen,
            _folder: folder,
        })
    }

    /// What came so far.
    pub fn seen(&self) -> Vec<Notice> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came of one topic.
    pub fn of(&self, topic: &str) -> Vec<Notice> {
        self.seen().into_iter().filter(|notice| notice.topic == topic).collect()
    }

    /// Waits until something holds of what came.
    ///
    /// # Errors
    /// When `limit` passes first, with what the subscriber said of errors.
    pub fn wait(&self, what: &str, limit: Duration, holds: impl Fn(&[Notice]) -> bool) -> Result<()> {
        wait_until(what, limit, || holds(&self.seen())).with_context(|| self.child.log_tail())
    }
}
