//! A wire between two peers that carries only so many bytes a second: what takes long on a real network takes long
//! on loopback too, so that a test can act in the middle of it.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes passed on in one go: small, so that the pace is even.
const SLICE: usize = 4096;

/// A listening address that leads to another one; dropped, it takes no more connections.
#[derive(Debug)]
pub struct SlowWire {
    address: SocketAddr,
    rate: Arc<AtomicU64>,
    held: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl SlowWire {
    /// Leads to `target` with `rate` bytes a second on each connection towards who dialled; 0 is no limit. The other
    /// direction is not limited.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(target: SocketAddr, rate: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, crate::free_port()))?;
        let address = listener.local_addr()?;
        let rate = Arc::new(AtomicU64::new(rate));
        let held = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let (pace, stays, stopped) = (rate.clone(), held.clone(), stop.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else {
                    continue;
                };
                let (Ok(near_copy), Ok(far_copy)) = (near.try_clone(), far.try_clone()) else {
                    continue;
                };
                let (pace, stays) = (pace.clone(), stays.clone());
                std::thread::spawn(move || carry(far_copy, near_copy, &pace, &stays));
                std::thread::spawn(move || carry(near, far, &AtomicU64::new(0), &AtomicBool::new(false)));
            }
        });
        Ok(SlowWire {
            address,
            rate,
            held,
            stop,
        })
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the rate, for connections that stand too.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Lets nothing more through to who dialled until it is told otherwise; what waits is not lost.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }
}

impl Drop for SlowWire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listening thread so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on what arrives until one side is gone, then tells the other.
fn carry(mut from: TcpStream, mut to: TcpStream, rate: &AtomicU64, held: &AtomicBool) {
    let mut buffer = [0; SLICE];
    loop {
        let started = Instant::now();
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        while held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        let rate = rate.load(Ordering::Relaxed);
        if rate > 0 {
            let due = Duration::from_secs_f64(read as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_slows_one_direction_and_tells_of_the_end() {
        let source = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = SlowWire::start(source.local_addr().unwrap(), 100_000).unwrap();
        let mut near = TcpStream::connect(wire.address()).unwrap();
        let (mut far, _) = source.accept().unwrap();
        wire.hold(true);
        far.write_all(b"x").unwrap();
        near.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(near.read_exact(&mut [0]).is_err(), "held, it lets nothing through");
        wire.hold(false);
        near.set_read_timeout(None).unwrap();
        let mut first = [0];
        near.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"x");
        let started = Instant::now();
        let sender = std::thread::spawn(move || {
            far.write_all(&[7; 50_000]).unwrap();
            let mut back = [0; 3];
            far.read_exact(&mut back).unwrap();
            back
        });
        near.write_all(b"abc").unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert_eq!(got, [7; 50_000]);
        assert!(
            started.elapsed() >= Duration::from_millis(400),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(&sender.join().unwrap(), b"abc");
    }
}
