//! Asking a SOCKS5 proxy for a connection (RFC 1928, RFC 1929).
//!
//! Each connection logs in with a name and a password of its own: Tor then gives it a circuit of its own (stream
//! isolation), so that nobody can tell that two links are those of one peer. Proxies that ask for no login get none.

use std::io;
use std::net::{IpAddr, SocketAddr};

use dunlin_peer::{Host, NetAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Connects to `to` through the proxy; `login` is the name and the password.
pub(crate) async fn connect(proxy: SocketAddr, to: NetAddr, login: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(&[VERSION, 2, NO_LOGIN, LOGIN]).await?;
    match read(&mut stream).await? {
        [VERSION, NO_LOGIN] => {}
        [VERSION, LOGIN] => {
            stream.write_all(&credentials(login)).await?;
            let [_, status] = read(&mut stream).await?;
            if status != 0 {
                return Err(refused("the proxy refuses the login"));
            }
        }
        [VERSION, _] => return Err(refused("the proxy asks for a login that we do not have")),
        _ => return Err(refused("the proxy speaks no SOCKS5")),
    }
    stream.write_all(&request(to)).await?;
    let [version, status, _, kind] = read(&mut stream).await?;
    if version != VERSION {
        return Err(refused("the proxy speaks no SOCKS5"));
    }
    if status != 0 {
        return Err(refused(meaning(status)));
    }
    // The address that the proxy uses is of no interest; its length is a byte at most.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = read(&mut stream).await?;
            usize::from(length)
        }
        _ => return Err(refused("the proxy speaks no SOCKS5")),
    };
    let mut rest = [0; 257];
    let rest = rest.get_mut(..length + 2).unwrap_or_default();
    stream.read_exact(rest).await?;
    Ok(stream)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn credentials(login: &str) -> Vec<u8> {
    let login = login.as_bytes();
    let login = login.get(..255).unwrap_or(login);
    // Cut to what fits a byte.
    let length = login.len() as u8;
    [&[LOGIN_VERSION, length], login, &[length], login].concat()
}

fn request(to: NetAddr) -> Vec<u8> {
    let mut out = vec![VERSION, CONNECT, 0];
    match to.host {
        Host::Ip(IpAddr::V4(ip)) => {
            out.push(IPV4);
            out.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) | Host::Cjdns(ip) => {
            out.push(IPV6);
            out.extend_from_slice(&ip.octets());
        }
        Host::TorV3(_) | Host::I2p(_) => {
            let name = to.host.to_string();
            // No such name has more than 62 bytes.
            out.extend_from_slice(&[NAME, name.len() as u8]);
            out.extend_from_slice(name.as_bytes());
        }
    }
    out.extend_from_slice(&to.port.to_be_bytes());
    out
}

/// What a status says; those from 0xf0 on are Tor's own.
fn meaning(status: u8) -> &'static str {
    match status {
        1 => "the proxy fails",
        2 => "the proxy does not allow it",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "connection refused",
        6 => "the connection took too long",
        7 => "the proxy does not know how to connect",
        8 => "the proxy does not know this kind of address",
        0xf0 => "the onion service cannot be found",
        0xf1 => "the onion service's descriptor is not valid",
        0xf2 => "the onion service's introduction failed",
        0xf3 => "the onion service's rendezvous failed",
        0xf4 => "the onion service asks for a client key",
        0xf5 => "the onion service refuses the client key",
        0xf6 => "the onion address is not valid",
        0xf7 => "the onion service's introduction took too long",
        _ => "the proxy refuses for a reason that it does not name",
    }
}

fn refused(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_what_only_the_proxy_can_find() {
        let to: NetAddr = "192.0.2.7:8333".parse().unwrap();
        assert_eq!(request(to), [5, 1, 0, 1, 192, 0, 2, 7, 0x20, 0x8d]);
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";
        let bytes = request(onion.parse().unwrap());
        assert_eq!(bytes[..5], [5, 1, 0, 3, 62]);
        assert_eq!(bytes[5..67], onion.as_bytes()[..62]);
    }

    #[test]
    fn logins_fit_their_lengths() {
        assert_eq!(credentials("ab"), [1, 2, b'a', b'b', 2, b'a', b'b']);
        assert_eq!(credentials(&"x".repeat(300)).len(), 3 + 2 * 255);
    }
}
