//! A real UDP tracker on loopback (BEP 15): connect, announce, scrape is refused.

use crate::tracker::{Announce, INTERVAL, Swarms, locked};
use anyhow::Result;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The protocol's constant in a connect request.
const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;
/// Most connection ids remembered.
const MAX_CONNECTIONS: usize = 1024;

/// A running UDP tracker; dropped, it stops answering.
#[derive(Debug)]
pub struct UdpTracker {
    address: SocketAddr,
    swarms: Arc<Mutex<Swarms>>,
    stop: Arc<AtomicBool>,
    lose: Arc<AtomicBool>,
}

impl UdpTracker {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, crate::free_port()))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let swarms = Arc::new(Mutex::new(Swarms::default()));
        let (stop, lose) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (table, stopped, losing) = (swarms.clone(), stop.clone(), lose.clone());
        std::thread::spawn(move || {
            let mut connections = BTreeSet::new();
            let mut next_connection = 0x1122_3344_0000_0001_u64;
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if losing.swap(false, Ordering::Relaxed) {
                    continue;
                }
                let packet = &buffer[..length];
                if let Some(answer) = answer(packet, from.ip(), &mut connections, &mut next_connection, &table) {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(UdpTracker {
            address,
            swarms,
            stop,
            lose,
        })
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        format!("udp://{}/announce", self.address)
    }

    /// Every announce so far, in order.
    pub fn announces(&self) -> Vec<Announce> {
        locked(&self.swarms).announces()
    }

    /// Loses the next packet that arrives: the client has to send it again.
    pub fn lose_one(&self) {
        self.lose.store(true, Ordering::Relaxed);
    }
}

impl Drop for UdpTracker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn number(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?))
}

fn long(packet: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(packet.get(at..at + 8)?.try_into().ok()?))
}

fn answer(
    packet: &[u8],
    from: IpAddr,
    connections: &mut BTreeSet<u64>,
    next_connection: &mut u64,
    swarms: &Mutex<Swarms>,
) -> Option<Vec<u8>> {
    let (connection, action, transaction) = (long(packet, 0)?, number(packet, 8)?, number(packet, 12)?);
    let mut out = Vec::new();
    if action == CONNECT {
        if connection != MAGIC {
            return None;
        }
        let id = *next_connection;
        *next_connection += 1;
        if connections.len() >= MAX_CONNECTIONS {
            connections.pop_first();
        }
        connections.insert(id);
        out.extend_from_slice(&CONNECT.to_be_bytes());
        out.extend_from_slice(&transaction.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        return Some(out);
    }
    if action != ANNOUNCE || !connections.contains(&connection) {
        out.extend_from_slice(&ERROR.to_be_bytes());
        out.extend_from_slice(&transaction.to_be_bytes());
        out.extend_from_slice(b"not connected, or no announce");
        return Some(out);
    }
    let IpAddr::V4(ip) = from else { return None };
    let event = match number(packet, 80)? {
        1 => "completed",
        2 => "started",
        3 => "stopped",
        _ => "",
    };
    let port = u16::from_be_bytes(packet.get(96..98)?.try_into().ok()?);
    let announce = Announce {
        info_hash: packet.get(16..36)?.try_into().ok()?,
        peer_id: packet.get(36..56)?.to_vec(),
        address: SocketAddrV4::new(ip, port),
        event: event.to_owned(),
        left: long(packet, 64)?,
    };
    let reply = locked(swarms).announce(announce);
    for value in [ANNOUNCE, transaction, INTERVAL, reply.leechers, reply.seeders] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    for peer in reply.peers {
        out.extend_from_slice(&peer.ip().octets());
        out.extend_from_slice(&peer.port().to_be_bytes());
    }
    Some(out)
}
