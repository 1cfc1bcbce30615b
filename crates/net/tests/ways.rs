//! Ways that do not lead straight: a SOCKS5 proxy and I2P's SAM bridge, played by the tests, with a real reactor.
#![allow(clippy::unwrap_used)]

mod toy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use dunlin_net::{Proxies, SamConfig};
use dunlin_peer::{DialToken, NetAddr, NetClass};
use sha2::{Digest, Sha256};
use toy::{Command, Event, Manners, config, start};

const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";

/// What a proxy was asked: the login, the kind of the address, the address and the port.
type Asked = (Vec<u8>, u8, Vec<u8>, u16);

fn take(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A proxy that asks for a login, leads every connection to `target`, and tells what it was asked.
fn proxy(target: SocketAddr) -> (SocketAddr, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, asked) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let [5, count] = take(&mut stream, 2)[..] else {
                panic!("no SOCKS5")
            };
            assert!(take(&mut stream, count.into()).contains(&2), "a login is offered");
            stream.write_all(&[5, 2]).unwrap();
            let mut login = Vec::new();
            assert_eq!(take(&mut stream, 1), [1]);
            for _ in 0..2 {
                let length = take(&mut stream, 1)[0];
                login.extend(take(&mut stream, length.into()));
            }
            stream.write_all(&[1, 0]).unwrap();
            let [5, 1, 0, kind] = take(&mut stream, 4)[..] else {
                panic!("no connect")
            };
            let length = match kind {
                1 => 4,
                4 => 16,
                _ => take(&mut stream, 1)[0],
            };
            let host = take(&mut stream, length.into());
            let port = u16::from_be_bytes(take(&mut stream, 2).try_into().unwrap());
            told.send((login, kind, host, port)).unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            splice(stream, TcpStream::connect(target).unwrap());
        }
    });
    (addr, asked)
}

fn splice(one: TcpStream, two: TcpStream) {
    for (mut from, mut to) in [(one.try_clone().unwrap(), two.try_clone().unwrap()), (two, one)] {
        thread::spawn(move || {
            // Either side may hang up first.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}

#[test]
fn dials_go_through_the_proxy_each_with_a_login_of_its_own() {
    let server = start(
        config(),
        Manners {
            echo: true,
            ..Manners::default()
        },
    );
    let (proxy, asked) = proxy(server.addr());
    let mut through = config();
    through.proxies = Proxies::all(proxy);
    let client = start(through, Manners::default());
    let onion: NetAddr = ONION.parse().unwrap();
    let plain: NetAddr = "192.0.2.7:8333".parse().unwrap();
    let mut logins = Vec::new();
    for (token, to) in [onion, plain].into_iter().enumerate() {
        client.handle.command(Command::Dial(to, token as u64));
        let link = client.connected();
        assert_eq!((link.addr, link.token), (to, Some(DialToken(token as u64))));
        client.send(link.id, "through");
        assert_eq!(client.received().1, "through");
        let (login, kind, host, port) = asked.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(port, 8333);
        match kind {
            3 => assert_eq!(
                host,
                ONION.rsplit_once(':').unwrap().0.as_bytes(),
                "the name is left to the proxy"
            ),
            _ => assert_eq!(host, [192, 0, 2, 7]),
        }
        logins.push(login);
    }
    assert_ne!(logins[0], logins[1]);
}

#[test]
fn what_has_no_way_is_not_dialled() {
    let client = start(config(), Manners::default());
    let i2p = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0";
    for (token, name) in [ONION, i2p].into_iter().enumerate() {
        let to: NetAddr = name.parse().unwrap();
        client.handle.command(Command::Dial(to, token as u64));
        let failed = client.wait(|event| match event {
            Event::DialFailed(addr, _) => Some(addr),
            _ => None,
        });
        assert_eq!(failed, to);
    }
}

/// A proxy for one network leaves the others alone.
#[test]
fn a_proxy_for_onions_is_for_onions_only() {
    let server = start(config(), Manners::default());
    let (proxy, asked) = proxy(server.addr());
    let mut through = config();
    through.proxies.set(NetClass::Onion, Some(proxy));
    let client = start(through, Manners::default());
    client.dial(&server);
    assert!(asked.try_recv().is_err());
    client.handle.command(Command::Dial(ONION.parse().unwrap(), 9));
    client.connected();
    assert!(asked.recv_timeout(Duration::from_secs(20)).is_ok());
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD
        .encode(bytes)
        .replace('+', "-")
        .replace('/', "~")
}

/// The bytes of somebody's destination: a certificate of four bytes tells the kind of its key.
fn destination(fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; 391];
    bytes[384..391].copy_from_slice(&[5, 0, 4, 0, 7, 0, 0]);
    bytes
}

/// A bridge that knows one other destination, at `target`, and lets it dial in when told to.
fn bridge(target: SocketAddr, other: NetAddr, knock: Receiver<TcpStream>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, lines) = channel();
    let knock = std::sync::Arc::new(std::sync::Mutex::new(knock));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, told, knock) = (stream.unwrap(), told.clone(), knock.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    // The test may have ended.
                    let _ = told.send(line.trim_end().to_owned());
                    let mut say = |text: String| stream.write_all(format!("{text}\n").as_bytes()).unwrap();
                    let words: Vec<&str> = line.split_whitespace().collect();
                    match words[..2] {
                        ["HELLO", "VERSION"] => say("HELLO REPLY RESULT=OK VERSION=3.1".into()),
                        ["DEST", "GENERATE"] => {
                            let key = [destination(1), vec![9; 288]].concat();
                            say(format!(
                                "DEST REPLY PUB={} PRIV={}",
                                base64(&destination(1)),
                                base64(&key)
                            ));
                        }
                        ["SESSION", "CREATE"] => say("SESSION STATUS RESULT=OK DESTINATION=x".into()),
                        ["NAMING", "LOOKUP"] => {
                            assert_eq!(words[2], format!("NAME={}", other.host));
                            say(format!(
                                "NAMING REPLY RESULT=OK NAME=x VALUE={}",
                                base64(&destination(2))
                            ));
                        }
                        ["STREAM", "CONNECT"] => {
                            say("STREAM STATUS RESULT=OK".into());
                            return splice(stream, TcpStream::connect(target).unwrap());
                        }
                        ["STREAM", "ACCEPT"] => {
                            say("STREAM STATUS RESULT=OK".into());
                            let Ok(from) = knock.lock().unwrap().recv() else { return };
                            stream
                                .write_all(format!("{} FROM_PORT=0 TO_PORT=0\n", base64(&destination(2))).as_bytes())
                                .unwrap();
                            return splice(stream, from);
                        }
                        _ => panic!("{line}"),
                    }
                }
            });
        }
    });
    (addr, lines)
}

#[test]
fn links_come_and_go_over_i2p_under_a_key_that_is_kept() {
    let other = NetAddr {
        host: dunlin_peer::Host::I2p(Sha256::digest(destination(2)).into()),
        port: 0,
    };
    let own = NetAddr {
        host: dunlin_peer::Host::I2p(Sha256::digest(destination(1)).into()),
        port: 0,
    };
    let server = start(
        config(),
        Manners {
            echo: true,
            ..Manners::default()
        },
    );
    let (knocks, knock) = channel();
    let (addr, lines) = bridge(server.addr(), other, knock);
    let folder = std::env::temp_dir().join(format!("dunlin-sam-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (found, addrs) = channel();
    let sam = SamConfig {
        addr,
        key: folder.join("i2p_private_key"),
        accept: true,
        found,
    };
    let mut with = config();
    with.i2p = Some(sam.clone());
    let node = start(
        with,
        Manners {
            echo: true,
            ..Manners::default()
        },
    );
    assert_eq!(addrs.recv_timeout(Duration::from_secs(20)), Ok(own));

    node.handle.command(Command::Dial(other, 3));
    let link = node.connected();
    assert_eq!((link.addr, link.token), (other, Some(DialToken(3))));
    node.send(link.id, "over");
    assert_eq!(node.received().1, "over");

    // Somebody dials us.
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut visitor = toy::Raw::connect(ours.local_addr().unwrap());
    knocks.send(ours.accept().unwrap().0).unwrap();
    let link = node.connected();
    assert_eq!((link.addr, link.token), (other, None));
    visitor.send(b"hello");
    assert_eq!(visitor.receive(), b"hello");

    node.handle.shutdown();
    let seen: Vec<String> = lines.try_iter().collect();
    assert!(
        seen.iter()
            .any(|line| line.starts_with("DEST GENERATE SIGNATURE_TYPE=7"))
    );
    // The next run has the same key.
    let mut again = config();
    again.i2p = Some(sam);
    let node = start(again, Manners::default());
    assert_eq!(addrs.recv_timeout(Duration::from_secs(20)), Ok(own));
    assert!(!lines.try_iter().any(|line| line.starts_with("DEST GENERATE")));
    drop(node);
    std::fs::remove_dir_all(folder).unwrap();
}
