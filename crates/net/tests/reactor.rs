//! Links open, carry messages both ways, and end; each input comes as the machine trait promises.

#![allow(clippy::unwrap_used)]

mod toy;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_net::{NetError, ReactorConfig, spawn};
use dunlin_peer::{DialToken, Direction, DisconnectCause};
use toy::{Command, Event, Frames, Manners, Raw, Toy, config, start};

fn echo() -> Manners {
    Manners {
        echo: true,
        ..Manners::default()
    }
}

#[test]
fn messages_of_every_size_come_back_whole_and_in_order() {
    let server = start(config(), echo());
    let client = start(ReactorConfig::new("client"), Manners::default());
    let link = client.dial(&server);
    let sizes = [0, 1, 100, 1023, 1024, 5000, 70_000, 1 << 20, 5 << 20, 3, 0, 9 << 20];
    for (number, size) in sizes.iter().enumerate() {
        client.send(link, vec![number as u8; *size]);
    }
    for (number, size) in sizes.iter().enumerate() {
        let (from, msg) = client.received();
        assert_eq!((from, msg.len()), (link, *size));
        assert!(msg.iter().all(|byte| *byte == number as u8));
    }
    let sent = sizes.iter().map(|size| *size as u64 + 4).sum::<u64>();
    let stats = &client.handle.links()[0];
    assert_eq!((stats.bytes_in, stats.bytes_out), (sent, sent));
    assert_eq!((stats.id, stats.addr), (link, server.addr().into()));
    assert_eq!(server.handle.links()[0].direction, Direction::Inbound);

    client.handle.shutdown();
    assert_eq!(server.disconnected().1, DisconnectCause::Remote);
    assert_eq!(server.handle.totals().bytes_out, sent);
    assert!(server.handle.links().is_empty());
}

#[test]
fn many_small_messages_cross_quickly() {
    const COUNT: u32 = 200_000;
    let server = start(config(), echo());
    let client = start(ReactorConfig::new("client"), Manners::default());
    let link = client.dial(&server);
    let began = Instant::now();
    for number in 0..COUNT {
        client.send(link, number.to_be_bytes().to_vec());
    }
    for number in 0..COUNT {
        assert_eq!(client.received().1, &number.to_be_bytes()[..]);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn close_sends_what_is_queued_and_nothing_after_it() {
    let words = Bytes::from(vec![42; 3 << 20]);
    let server = start(
        config(),
        Manners {
            last_words: Some(words.clone()),
            ..Manners::default()
        },
    );
    let mut client = Raw::connect(server.addr());
    client.send(b"go");
    client.send(b"arrives after the close and is not delivered");
    assert_eq!(client.receive(), words);
    assert!(client.at_end());
    let events = server.during(Duration::from_millis(300));
    let received = events
        .iter()
        .filter(|event| matches!(event, Event::Received(..)))
        .count();
    assert_eq!(received, 1);
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Disconnected(_, cause) => Some(cause.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(ends, ["closed by us: said it all"]);
}

#[test]
fn close_gives_up_on_a_peer_that_does_not_read() {
    let config = ReactorConfig {
        close_timeout: Duration::from_millis(600),
        ..config()
    };
    let server = start(
        config,
        Manners {
            greeting: Some(Bytes::from(vec![0; 16 << 20])),
            ..Manners::default()
        },
    );
    let _client = Raw::connect(server.addr());
    let link = server.connected().id;
    let began = Instant::now();
    server.handle.command(Command::Close(link));
    server.handle.command(Command::Close(link));
    assert_eq!(server.disconnected().1.to_string(), "closed by us: told to");
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(server.during(Duration::from_millis(300)).is_empty(), "one Disconnected");
}

#[test]
fn a_dial_that_fails_says_so_with_its_token() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = start(ReactorConfig::new("client"), Manners::default());
    client.handle.command(Command::Dial(closed.into(), 5));
    match client.next() {
        Event::DialFailed(addr, token) => assert_eq!((addr, token), (closed.into(), DialToken(5))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_port_in_use_is_named() {
    let first = start(config(), Manners::default());
    let again = ReactorConfig::new("second").listen(first.addr());
    let error = spawn(again, |_| Toy::new(Manners::default()), |_| Frames, |_, _| {}, |_| {}).unwrap_err();
    assert_eq!(error.in_use(), Some(first.addr()));
    assert!(error.to_string().contains(&first.addr().to_string()));
    let foreign: SocketAddr = "203.0.113.1:1".parse().unwrap();
    let foreign = ReactorConfig::new("third").listen(foreign);
    let error = spawn(foreign, |_| Toy::new(Manners::default()), |_| Frames, |_, _| {}, |_| {}).unwrap_err();
    assert!(matches!(error, NetError::Listen { .. }) && error.in_use().is_none());
}

#[test]
fn inbound_links_beyond_the_limit_are_refused_and_the_rest_live_on() {
    let config = ReactorConfig {
        max_inbound: 3,
        ..config()
    };
    let server = start(config, echo());
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::connect(server.addr())).collect();
    for _ in 0..3 {
        server.connected();
    }
    for _ in 0..5 {
        assert!(Raw::connect(server.addr()).at_end());
    }
    for client in &mut clients {
        client.send(b"still there");
        assert_eq!(client.receive(), b"still there");
    }
    clients.pop();
    server.disconnected();
    let mut late = Raw::connect(server.addr());
    late.send(b"room again");
    assert_eq!(late.receive(), b"room again");
}

#[test]
fn a_machine_may_evict_for_a_newcomer() {
    let manners = Manners {
        keep: Some(2),
        ..echo()
    };
    let server = start(config(), manners);
    let mut clients: Vec<Raw> = (0..5).map(|_| Raw::connect(server.addr())).collect();
    for client in clients.iter_mut().take(3) {
        assert!(client.at_end());
    }
    for client in clients.iter_mut().skip(3) {
        client.send(b"kept");
        assert_eq!(client.receive(), b"kept");
    }
}

#[test]
fn broken_framing_ends_the_link_with_a_reason() {
    let server = start(config(), echo());
    let mut client = Raw::connect(server.addr());
    client.send(b"fine");
    assert_eq!(client.receive(), b"fine");
    std::io::Write::write_all(&mut client.0, &[0xff; 4]).unwrap();
    assert_eq!(server.disconnected().1, DisconnectCause::Codec("frame too long".into()));
    assert!(client.at_end());
}

#[test]
fn jobs_and_timers_answer() {
    let toy = start(ReactorConfig::new("toy"), Manners::default());
    for number in 0..100 {
        toy.handle.command(Command::Job(number));
    }
    let mut answers: Vec<u64> = (0..100)
        .map(|_| {
            toy.wait(|event| match event {
                Event::JobDone(number) => Some(number),
                _ => None,
            })
        })
        .collect();
    answers.sort_unstable();
    assert!(answers.into_iter().eq((0..100).map(|number| number * 2)));

    for millis in [0, 30, 200] {
        toy.handle.command(Command::Timer(Duration::from_millis(millis)));
        match toy.next() {
            Event::Timer(late) => {
                assert!(late >= Duration::from_millis(millis), "{late:?}");
                assert!(late < Duration::from_millis(millis + 2000), "{late:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    // A timer set in a link's turn while the main loop sleeps for a later one.
    toy.handle.command(Command::Timer(Duration::from_secs(3600)));
    toy.handle.command(Command::Timer(Duration::from_millis(20)));
    assert!(matches!(toy.next(), Event::Timer(_)));
}

#[test]
fn shutdown_ends_every_link_once_and_frees_the_port() {
    let server = start(config(), Manners::default());
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::connect(server.addr())).collect();
    for _ in 0..20 {
        server.connected();
    }
    let addr = server.addr();
    let others = server.handle.clone();
    let waiter = std::thread::spawn(move || others.shutdown());
    server.handle.shutdown();
    waiter.join().unwrap();
    assert!(!server.handle.is_running());
    assert!(!server.handle.command(Command::Job(1)));
    let ends = server.during(Duration::ZERO);
    let ends = ends.iter().filter(|event| matches!(event, Event::Disconnected(..)));
    assert_eq!(ends.count(), 20);
    assert!(server.handle.links().is_empty());
    for client in &mut clients {
        assert!(client.at_end());
    }
    start(ReactorConfig::new("again").listen(addr), Manners::default());
}

#[test]
fn dropping_the_last_handle_ends_the_reactor() {
    let server = start(config(), Manners::default());
    let mut client = Raw::connect(server.addr());
    server.connected();
    let toy::Running { handle, events } = server;
    drop(handle);
    assert!(client.at_end());
    assert!(matches!(
        events.recv_timeout(toy::PATIENCE),
        Ok(Event::Disconnected(..))
    ));
    assert!(events.recv_timeout(toy::PATIENCE).is_err(), "the thread has ended");
}

#[test]
fn a_machine_that_panics_takes_only_its_reactor_along() {
    let server = start(config(), Manners::default());
    let mut client = Raw::connect(server.addr());
    server.connected();
    server.handle.command(Command::Panic);
    assert!(client.at_end());
    server.handle.shutdown();
    assert!(!server.handle.is_running());
}

#[test]
fn datagrams_travel_from_the_port_that_is_listened_on() {
    let server = start(config().with_datagrams(), echo());
    let client = start(config().with_datagrams(), Manners::default());
    for length in [0, 1, 1400, 9000, 60_000] {
        let sent = Bytes::from(vec![length as u8; length]);
        client.handle.command(Command::Datagram(server.addr(), sent.clone()));
        for (side, from) in [(&server, client.addr()), (&client, server.addr())] {
            let (told, got) = side.wait(|event| match event {
                Event::Datagram(from, bytes) => Some((from, bytes)),
                _ => None,
            });
            assert_eq!((told, got.len()), (from, length));
            assert_eq!(got, sent);
        }
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_is_lost_and_nothing_else() {
    let server = start(config().with_datagrams(), echo());
    let client = start(config().with_datagrams(), Manners::default());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lost = [(nobody, 10), ("[::1]:9".parse().unwrap(), 10), (server.addr(), 70_000)];
    for (to, length) in lost {
        client.handle.command(Command::Datagram(to, vec![1; length].into()));
    }
    let deadline = Instant::now() + toy::PATIENCE;
    // The refusal of the first one may come back at any time, and cost one more.
    let got = std::iter::repeat_with(|| {
        assert!(Instant::now() < deadline, "no datagram comes through any more");
        client
            .handle
            .command(Command::Datagram(server.addr(), Bytes::from_static(b"last")));
        let told = client.during(Duration::from_millis(100));
        told.into_iter().find_map(|event| match event {
            Event::Datagram(_, bytes) => Some(bytes),
            _ => None,
        })
    });
    assert_eq!(got.flatten().next().unwrap(), &b"last"[..]);
    assert!(client.handle.is_running() && client.handle.links().is_empty());
}
