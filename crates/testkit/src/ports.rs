//! Ports that nobody else on this machine uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// First port handed out: above the registered services of most machines.
const FIRST: u32 = 20_000;
/// Number of ports in the range, which ends below 32768, where Linux begins to give ports to outgoing connections: a
/// port that was free when it was asked for is then not taken by a stranger before its owner binds it.
const RANGE: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port free for TCP and UDP on loopback; this process never hands out the same one twice before going round.
///
/// # Panics
/// When no port of the range is free.
pub fn free_port() -> u16 {
    // Processes that run at the same time begin far apart.
    let start = std::process::id().wrapping_mul(997) % RANGE;
    for _ in 0..RANGE {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % RANGE;
        let Ok(port) = u16::try_from(port) else { continue };
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + RANGE);
}

/// A free port as an address on 127.0.0.1.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_do_not_repeat_and_can_be_bound() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        let listener = TcpListener::bind(free_address());
        assert!(listener.is_ok());
    }
}
