//! Many peers that have nothing to say: they shake hands, answer pings, and else sit there.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use bitcoin::consensus::deserialize;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};

use super::{Asker, HEADER, MAX_PAYLOAD, send};

/// How often the peers look for something to answer.
const LOOK: Duration = Duration::from_millis(100);

/// The connections; dropped, all hang up.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Dials `to` so many times and shakes hands each time.
    ///
    /// # Errors
    /// When nobody answers there as a Bitcoin peer does.
    pub fn dial(to: SocketAddr, count: usize) -> Result<Self> {
        let mut members = Vec::new();
        for _ in 0..count {
            let stream = Asker::dial(to)?.stream;
            stream.set_nonblocking(true)?;
            members.push((stream, Vec::new()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Whoever was hung up on stays away.
                members.retain_mut(|(stream, bytes)| answer(stream, bytes).is_ok());
                std::thread::sleep(LOOK);
            }
        });
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Reads what is there and answers what wants an answer.
fn answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<()> {
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(read) => {
                ensure!(read > 0, "the other side hung up");
                bytes.extend_from_slice(&part[..read]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(head) = bytes.first_chunk::<HEADER>() {
        let length = usize::try_from(u32::from_le_bytes([head[16], head[17], head[18], head[19]]))?;
        ensure!(length <= MAX_PAYLOAD, "a message of {length} bytes");
        if bytes.len() < HEADER + length {
            break;
        }
        let message: Vec<u8> = bytes.drain(..HEADER + length).collect();
        match deserialize::<RawNetworkMessage>(&message)?.into_payload() {
            NetworkMessage::Ping(nonce) => send(stream, NetworkMessage::Pong(nonce))?,
            NetworkMessage::GetHeaders(_) => send(stream, NetworkMessage::Headers(Vec::new()))?,
            _ => {}
        }
    }
    Ok(())
}
