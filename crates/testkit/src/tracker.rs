//! A real tracker on loopback (BEP 3 with compact answers, BEP 23), for clients that find each other by asking it.

use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Seconds a client is asked to wait between announces: tests are short.
pub(crate) const INTERVAL: u32 = 5;
/// Most peers in one answer.
const MAX_PEERS: usize = 50;
/// Most clients served at once.
const MAX_CLIENTS: usize = 64;
/// Longest request line read.
const MAX_REQUEST: usize = 8 << 10;

/// One announce as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// The client's name for itself.
    pub peer_id: Vec<u8>,
    /// Where it says that it listens.
    pub address: SocketAddrV4,
    /// `started`, `completed`, `stopped` or empty.
    pub event: String,
    /// Bytes it still lacks.
    pub left: u64,
}

/// Who shares what; the HTTP and the UDP tracker answer from the same kind of table.
#[derive(Debug, Default)]
pub(crate) struct Swarms {
    swarms: BTreeMap<[u8; 20], BTreeMap<SocketAddrV4, u64>>,
    announces: Vec<Announce>,
}

/// What a tracker answers.
pub(crate) struct Answer {
    pub(crate) peers: Vec<SocketAddrV4>,
    pub(crate) seeders: u32,
    pub(crate) leechers: u32,
}

impl Swarms {
    pub(crate) fn announce(&mut self, announce: Announce) -> Answer {
        let swarm = self.swarms.entry(announce.info_hash).or_default();
        if announce.event == "stopped" {
            swarm.remove(&announce.address);
        } else {
            swarm.insert(announce.address, announce.left);
        }
        let peers = swarm
            .keys()
            .filter(|peer| **peer != announce.address)
            .take(MAX_PEERS)
            .copied()
            .collect();
        let seeders = swarm.values().filter(|left| **left == 0).count();
        let leechers = swarm.len() - seeders;
        self.announces.push(announce);
        Answer {
            peers,
            seeders: u32::try_from(seeders).unwrap_or(u32::MAX),
            leechers: u32::try_from(leechers).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn announces(&self) -> Vec<Announce> {
        self.announces.clone()
    }
}

/// Reads what a tracker knows, even after a test thread died with it locked.
pub(crate) fn locked(swarms: &Mutex<Swarms>) -> std::sync::MutexGuard<'_, Swarms> {
    swarms.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A running HTTP tracker; dropped, it stops answering.
#[derive(Debug)]
pub struct HttpTracker {
    address: SocketAddr,
    swarms: Arc<Mutex<Swarms>>,
    stop: Arc<AtomicBool>,
}

impl HttpTracker {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, crate::free_port()))?;
        let address = listener.local_addr()?;
        let swarms = Arc::new(Mutex::new(Swarms::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (table, stopped) = (swarms.clone(), stop.clone());
        let clients = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (table, clients) = (table.clone(), clients.clone());
                std::thread::spawn(move || {
                    // A client that breaks off or talks nonsense gets no answer.
                    let _ = serve(stream, &table);
                    clients.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(HttpTracker { address, swarms, stop })
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Every announce so far, in order.
    pub fn announces(&self) -> Vec<Announce> {
        locked(&self.swarms).announces()
    }
}

impl Drop for HttpTracker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listening thread so that it sees the flag and gives the port back.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, swarms: &Mutex<Swarms>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let peer = stream.peer_addr()?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer)?;
        anyhow::ensure!(read > 0 && request.len() <= MAX_REQUEST, "no whole request");
        request.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default();
    let body = match parse(target, peer.ip()) {
        Ok(announce) => encode(&locked(swarms).announce(announce)),
        Err(reason) => format!("d14:failure reason{}:{reason}e", reason.len()).into_bytes(),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

fn encode(answer: &Answer) -> Vec<u8> {
    let mut body = format!(
        "d8:completei{}e10:incompletei{}e8:intervali{INTERVAL}e12:min intervali1e5:peers{}:",
        answer.seeders,
        answer.leechers,
        answer.peers.len() * 6
    )
    .into_bytes();
    for peer in &answer.peers {
        body.extend_from_slice(&peer.ip().octets());
        body.extend_from_slice(&peer.port().to_be_bytes());
    }
    body.push(b'e');
    body
}

fn parse(target: &str, from: IpAddr) -> Result<Announce, &'static str> {
    let (path, query) = target.split_once('?').ok_or("no query")?;
    if path != "/announce" {
        return Err("only /announce is served");
    }
    let mut fields = BTreeMap::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        fields.insert(key, unescape(value).ok_or("bad escape")?);
    }
    let number = |key: &str| -> Result<u64, &'static str> {
        let text = fields.get(key).ok_or("a number is missing")?;
        std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or("a number is no number")
    };
    let info_hash = fields.get("info_hash").ok_or("no info_hash")?;
    let info_hash = info_hash
        .as_slice()
        .try_into()
        .map_err(|_| "info_hash is not 20 bytes")?;
    let peer_id = fields.get("peer_id").ok_or("no peer_id")?.clone();
    if peer_id.len() != 20 {
        return Err("peer_id is not 20 bytes");
    }
    let IpAddr::V4(ip) = from else {
        return Err("only IPv4 is served");
    };
    let port = u16::try_from(number("port")?).map_err(|_| "the port is too large")?;
    let event = fields
        .get("event")
        .map(|event| String::from_utf8_lossy(event).into_owned())
        .unwrap_or_default();
    let left = number("left")?;
    number("uploaded")?;
    number("downloaded")?;
    Ok(Announce {
        info_hash,
        peer_id,
        address: SocketAddrV4::new(ip, port),
        event,
        left,
    })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn get(url: &str) -> Vec<u8> {
        let agent = crate::rpc::agent(Duration::from_secs(5));
        agent.get(url).call().unwrap().body_mut().read_to_vec().unwrap()
    }

    #[test]
    fn peers_learn_of_each_other_and_stop() {
        let tracker = HttpTracker::start().unwrap();
        let ask = |port: u16, event: &str| {
            let hash = "%01".repeat(20);
            get(&format!(
                "{}?info_hash={hash}&peer_id=-TT0000-123456789012&port={port}&uploaded=0&downloaded=0&left=5&compact=1&event={event}",
                tracker.url()
            ))
        };
        assert!(ask(1000, "started").ends_with(b"5:peers0:e"));
        assert!(ask(2000, "started").ends_with(b"5:peers6:\x7f\0\0\x01\x03\xe8e"));
        ask(1000, "stopped");
        assert!(ask(2000, "").ends_with(b"5:peers0:e"));
        let announces = tracker.announces();
        assert_eq!(announces.len(), 4);
        assert_eq!(announces[0].info_hash, [1; 20]);
        assert!(get(&format!("{}?info_hash=short", tracker.url())).starts_with(b"d14:failure reason"));
    }
}
