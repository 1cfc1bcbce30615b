//! Taking in links from outside.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::rc::Rc;
use std::time::Duration;

use dunlin_peer::{Codec, Direction, Machine};
use tokio::net::TcpListener;

use crate::NetError;
use crate::driver::Driver;
use crate::link::linger;

/// The pause after a failed accept, doubled up to [`MAX_PAUSE`] while it goes on: with no file descriptor left the
/// listener stays readable and would otherwise spin.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Connections that may linger at once when another is refused; beyond it the refused are cut off.
const MAX_REFUSALS: usize = 32;

/// How often a free port is tried again when it is taken for datagrams.
const PORT_TRIES: u32 = 16;

/// Takes the address, so that the caller hears at once when it cannot be had; with `datagrams` also for UDP, at the
/// same port.
pub(crate) fn bind(
    addr: SocketAddr,
    datagrams: bool,
) -> Result<(StdListener, Option<StdSocket>, SocketAddr), NetError> {
    let bound = || -> io::Result<_> {
        let listener = StdListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let socket = if datagrams {
            let socket = StdSocket::bind(local)?;
            socket.set_nonblocking(true)?;
            Some(socket)
        } else {
            None
        };
        Ok((listener, socket, local))
    };
    let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bound() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound.map_err(|source| NetError::Listen { addr, source }),
        }
    }
}

/// Accepts for as long as the reactor listens.
pub(crate) async fn run<M, C>(driver: Rc<Driver<M, C>>, listener: TcpListener)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut pause = MIN_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                pause = MIN_PAUSE;
                if !driver.inbound_full() {
                    driver.open(stream, addr.into(), Direction::Inbound, None);
                    continue;
                }
                tracing::debug!(reactor = %driver.config.name, %addr, "refused: inbound links are full");
                if Rc::strong_count(&driver.lingering) <= MAX_REFUSALS {
                    let lingering = Rc::clone(&driver.lingering);
                    tokio::task::spawn_local(async move {
                        linger(stream).await;
                        drop(lingering);
                    });
                }
            }
            // That connection is gone; the next one has nothing to do with it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if pause == MIN_PAUSE {
                    tracing::warn!(reactor = %driver.config.name, %error, "cannot accept; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
