//! A hostile BitTorrent seeder: it has the whole torrent, and corrupts the blocks it is told to.
//!
//! Its own small piece of the peer wire (BEP 3) on plain threads, so that nothing it does depends on our code.

use crate::metainfo::Torrent;
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest message read: a request and the bitfield of a large torrent fit.
const MAX_MESSAGE: u32 = 1 << 20;

/// Which blocks are corrupted.
#[derive(Debug, Clone)]
pub enum Lie {
    /// None: an honest seeder.
    Never,
    /// Every block.
    Always,
    /// Every block of these pieces.
    Pieces(Vec<u32>),
}

impl Lie {
    fn covers(&self, piece: u32) -> bool {
        match self {
            Lie::Never => false,
            Lie::Always => true,
            Lie::Pieces(pieces) => pieces.contains(&piece),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    handshakes: AtomicU64,
    honest_blocks: AtomicU64,
    corrupt_blocks: AtomicU64,
    closed_by_them: AtomicU64,
}

/// A running liar; dropped, it hangs up and stops listening.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    counters: Arc<Counters>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
}

impl Liar {
    /// Listens on `ip` (any of 127.0.0.0/8, so that a ban hits only the liar) and seeds `torrent`.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start(torrent: Torrent, ip: Ipv4Addr, lie: Lie) -> Result<Self> {
        let listener = TcpListener::bind((ip, crate::free_port()))?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let open = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (counts, streams, stopped) = (counters.clone(), open.clone(), stop.clone());
        let torrent = Arc::new(torrent);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                counts.connections.fetch_add(1, Ordering::Relaxed);
                if let (Ok(copy), Ok(mut streams)) = (stream.try_clone(), streams.lock()) {
                    streams.push(copy);
                }
                let (counts, torrent, lie) = (counts.clone(), torrent.clone(), lie.clone());
                std::thread::spawn(move || {
                    // However the connection ended, the other side ended it: the liar never hangs up while it runs.
                    let _ = serve(stream, &torrent, &lie, &counts);
                    counts.closed_by_them.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Liar {
            address,
            counters,
            open,
            stop,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    /// Connections that came as far as a handshake for this torrent.
    pub fn handshakes(&self) -> u64 {
        self.counters.handshakes.load(Ordering::Relaxed)
    }

    /// Blocks sent as they are.
    pub fn honest_blocks(&self) -> u64 {
        self.counters.honest_blocks.load(Ordering::Relaxed)
    }

    /// Blocks sent with a bit turned.
    pub fn corrupt_blocks(&self) -> u64 {
        self.counters.corrupt_blocks.load(Ordering::Relaxed)
    }

    /// Connections that the other side ended.
    pub fn hung_up_on(&self) -> u64 {
        self.counters.closed_by_them.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Ok(streams) = self.open.lock() {
            for stream in streams.iter() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn message(stream: &mut TcpStream, kind: u8, payload: &[&[u8]]) -> Result<()> {
    let length: usize = 1 + payload.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = u32::try_from(length)?.to_be_bytes().to_vec();
    bytes.push(kind);
    for part in payload {
        bytes.extend_from_slice(part);
    }
    Ok(stream.write_all(&bytes)?)
}

fn number(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(bytes.try_into()?))
}

fn serve(mut stream: TcpStream, torrent: &Torrent, lie: &Lie, counters: &Counters) -> Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut hello = [0; 68];
    stream.read_exact(&mut hello)?;
    ensure!(&hello[..20] == b"\x13BitTorrent protocol", "not BitTorrent");
    ensure!(hello[28..48] == torrent.info_hash, "another torrent");
    let mut answer = Vec::from(*b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0");
    answer.extend_from_slice(&torrent.info_hash);
    answer.extend_from_slice(b"-LI0001-liarliarliar");
    stream.write_all(&answer)?;
    counters.handshakes.fetch_add(1, Ordering::Relaxed);

    let pieces = usize::try_from(torrent.pieces())?;
    let mut bitfield = vec![0_u8; pieces.div_ceil(8)];
    for piece in 0..pieces {
        bitfield[piece / 8] |= 0x80 >> (piece % 8);
    }
    message(&mut stream, 5, &[&bitfield])?;
    message(&mut stream, 1, &[])?;

    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head);
        ensure!(length <= MAX_MESSAGE, "a message of {length} bytes");
        let mut body = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut body)?;
        // Only requests are answered; the choke has been lifted already.
        if body.first() != Some(&6) {
            continue;
        }
        ensure!(body.len() == 13, "a request of {} bytes", body.len());
        let (piece, begin, size) = (number(&body[1..5])?, number(&body[5..9])?, number(&body[9..13])?);
        ensure!(size <= 128 << 10, "a request for {size} bytes");
        let offset = u64::from(piece) * torrent.piece_length + u64::from(begin);
        let mut block = torrent.read(offset, usize::try_from(size)?)?;
        if lie.covers(piece) {
            if let Some(byte) = block.first_mut() {
                *byte ^= 0x01;
            }
            counters.corrupt_blocks.fetch_add(1, Ordering::Relaxed);
        } else {
            counters.honest_blocks.fetch_add(1, Ordering::Relaxed);
        }
        message(&mut stream, 7, &[&body[1..9], &block])?;
    }
}
