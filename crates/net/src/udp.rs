//! Request and response over UDP, blocking, for trackers (BEP 15). The caller keeps the schedule of retries.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// The largest datagram that is taken in.
const MAX_DATAGRAM: usize = 64 << 10;

/// A UDP exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// The name is unknown.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name asked for.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No fitting answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side has no such port open.
    #[error("nobody answers there")]
    Refused,
    /// Something else.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for UdpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// All addresses of a name; blocks on the system's resolver.
///
/// # Errors
/// [`UdpError::Resolve`] when there is none.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, UdpError> {
    let fail = |source| UdpError::Resolve {
        host: host.to_owned(),
        source,
    };
    let addrs: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(fail)?.collect();
    if addrs.is_empty() {
        return Err(fail(io::ErrorKind::NotFound.into()));
    }
    Ok(addrs)
}

/// A socket that talks to one address only: datagrams from elsewhere never arrive.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// A socket connected to `addr`.
    ///
    /// # Errors
    /// [`UdpError::Io`] when the system gives none or knows no way there.
    pub fn connect(addr: SocketAddr) -> Result<Self, UdpError> {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(addr)?;
        Ok(Self { socket })
    }

    /// Our side's address, as seen on the way there.
    ///
    /// # Errors
    /// [`UdpError::Io`] when the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr, UdpError> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends `request` and waits up to `timeout` for a datagram that `fits` accepts (the right transaction id);
    /// others are passed over.
    ///
    /// # Errors
    /// [`UdpError::Timeout`] or [`UdpError::Refused`]: try again later; [`UdpError::Io`] for our own trouble.
    pub fn exchange(
        &self,
        request: &[u8],
        timeout: Duration,
        mut fits: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<u8>, UdpError> {
        let deadline = Instant::now() + timeout;
        self.socket.send(request)?;
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(UdpError::Timeout);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut datagram) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if fits(&datagram[..length]) {
                datagram.truncate(length);
                return Ok(datagram);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_do_not_fit_are_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpClient::connect(server.local_addr().unwrap()).unwrap();
        let echo = std::thread::spawn(move || {
            let mut buf = [0; 100];
            let (length, from) = server.recv_from(&mut buf).unwrap();
            server.send_to(b"stray", from).unwrap();
            server.send_to(&buf[..length], from).unwrap();
        });
        let answer = client.exchange(b"ping", Duration::from_secs(10), |bytes| bytes == b"ping");
        assert_eq!(answer.unwrap(), b"ping");
        echo.join().unwrap();
    }

    #[test]
    fn silence_and_closed_ports_end_in_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpClient::connect(silent.local_addr().unwrap()).unwrap();
        let answer = client.exchange(b"x", Duration::from_millis(50), |_| true);
        assert!(matches!(answer, Err(UdpError::Timeout)));

        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = UdpClient::connect(closed).unwrap();
        let answer = client.exchange(b"x", Duration::from_secs(10), |_| true);
        assert!(matches!(answer, Err(UdpError::Refused)), "{answer:?}");
    }

    #[test]
    fn names_resolve() {
        assert!(
            resolve("127.0.0.1", 80)
                .unwrap()
                .contains(&"127.0.0.1:80".parse().unwrap())
        );
        assert!(matches!(
            resolve("no such name.invalid", 80),
            Err(UdpError::Resolve { .. })
        ));
    }
}
