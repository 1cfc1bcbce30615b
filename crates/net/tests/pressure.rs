//! Peers that do not read, flood, or come in crowds: memory stays bounded and the others are served.

#![allow(clippy::unwrap_used)]

mod toy;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_net::{ReactorConfig, raise_file_limit};
use dunlin_peer::DisconnectCause;
use toy::{Command, Event, Manners, Raw, config, start};

#[test]
fn a_peer_that_asks_and_never_reads_is_not_read_from_and_then_dropped() {
    const ANSWER: usize = 64 << 10;
    let config = ReactorConfig {
        send_mark: 64 << 10,
        read_mark: 256 << 10,
        send_cap: 8 << 20,
        ..config()
    };
    let server = start(
        config,
        Manners {
            answer: Some(ANSWER),
            ..Manners::default()
        },
    );
    let client = Raw::connect(server.addr());
    let link = server.connected().id;
    let mut stream = client.0.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let request = [0, 0, 0, 1, 7].repeat(10_000);
        while stream.write_all(&request).is_ok() {}
    });
    // What is answered before the stall rule steps in: the read mark and what the kernel holds.
    let early = server.during(Duration::from_millis(1200));
    let answered = early
        .iter()
        .filter(|event| matches!(event, Event::Received(..)))
        .count();
    assert!(answered > 4 && answered * ANSWER < 16 << 20, "{answered}");
    // Then it is read again for the sake of peers that wait for each other, until the cap.
    let mut more = 0;
    let cause = server.wait(|event| match event {
        Event::Received(..) => {
            more += 1;
            None
        }
        Event::Disconnected(id, cause) if id == link => Some(cause),
        _ => None,
    });
    assert_eq!(
        cause,
        DisconnectCause::Transport("the peer does not read what we send".into())
    );
    assert!((answered + more) * ANSWER < 32 << 20, "{more}");
    assert!(server.during(Duration::from_millis(200)).is_empty());
    flood.join().unwrap();
    drop(client);
}

#[test]
fn a_peer_that_takes_nothing_is_dropped_in_time() {
    let config = ReactorConfig {
        send_timeout: Duration::from_secs(1),
        ..config()
    };
    let manners = Manners {
        greeting: Some(Bytes::from(vec![0; 12 << 20])),
        ..Manners::default()
    };
    let server = start(config, manners);
    let _client = Raw::connect(server.addr());
    let began = Instant::now();
    assert!(matches!(server.disconnected().1, DisconnectCause::Transport(_)));
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[test]
fn two_peers_that_both_send_first_do_not_wait_for_ever() {
    let greeting = Bytes::from(vec![9; 16 << 20]);
    let manners = Manners {
        greeting: Some(greeting.clone()),
        ..Manners::default()
    };
    let config = ReactorConfig {
        read_mark: 128 << 10,
        ..config()
    };
    let one = start(config.clone(), manners.clone());
    let two = start(config, manners);
    one.dial(&two);
    assert_eq!(one.received().1, greeting);
    assert_eq!(two.received().1, greeting);
}

#[test]
fn writable_comes_once_the_queue_has_drained() {
    let config = ReactorConfig {
        send_mark: 1 << 20,
        ..config()
    };
    let server = start(config, Manners::default());
    let mut client = Raw::connect(server.addr());
    let link = server.connected().id;
    server.send(link, vec![0; 512 << 10]);
    client.receive();
    assert!(
        server.during(Duration::from_millis(100)).is_empty(),
        "the mark was not reached"
    );
    // More than the kernel takes over by itself.
    server.send(link, vec![0; 16 << 20]);
    assert!(
        server.during(Duration::from_millis(300)).is_empty(),
        "nothing drained yet"
    );
    client.receive();
    assert!(matches!(server.next(), Event::Writable(id) if id == link));
    assert!(server.during(Duration::from_millis(100)).is_empty(), "once");
}

#[test]
fn writable_comes_to_a_sender_whose_queue_never_fills() {
    let config = ReactorConfig {
        send_mark: 1 << 20,
        ..config()
    };
    let server = start(config, Manners::default());
    let mut client = Raw::connect(server.addr());
    let link = server.connected().id;
    for _ in 0..3 {
        for _ in 0..4 {
            assert!(
                server.during(Duration::from_millis(20)).is_empty(),
                "less than the mark"
            );
            server.send(link, vec![0; 250 << 10]);
            client.receive();
        }
        server.send(link, vec![0; 50 << 10]);
        client.receive();
        assert!(matches!(server.next(), Event::Writable(id) if id == link));
    }
}

#[test]
fn a_paused_link_delivers_nothing_until_resumed() {
    let server = start(config(), Manners::default());
    let mut client = Raw::connect(server.addr());
    let link = server.connected().id;
    client.send(b"one");
    assert_eq!(server.received().1, &b"one"[..]);
    server.handle.command(Command::Pause(link));
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..10 {
        client.send(b"later");
    }
    assert!(server.during(Duration::from_millis(300)).is_empty());
    server.handle.command(Command::Resume(link));
    for _ in 0..10 {
        assert_eq!(server.received().1, &b"later"[..]);
    }
}

#[test]
fn a_flood_does_not_starve_the_others() {
    let server = start(
        config(),
        Manners {
            echo: true,
            ..Manners::default()
        },
    );
    let mut flooder = Raw::connect(server.addr());
    let mut sink = flooder.0.try_clone().unwrap();
    let mut quiet = Raw::connect(server.addr());
    let flood = std::thread::spawn(move || {
        let burst = [0, 0, 0, 1, 7].repeat(20_000);
        while flooder.0.write_all(&burst).is_ok() {}
    });
    let drain = std::thread::spawn(move || {
        let mut scrap = vec![0; 1 << 20];
        while std::io::Read::read(&mut sink, &mut scrap).is_ok_and(|read| read > 0) {}
    });
    // The flood's own events are dropped as they come.
    let events = server.events;
    let eat = std::thread::spawn(move || events.into_iter().count());
    std::thread::sleep(Duration::from_millis(200));
    let mut worst = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        quiet.send(b"me too");
        assert_eq!(quiet.receive(), b"me too");
        worst = worst.max(began.elapsed());
    }
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    server.handle.shutdown();
    assert!(!server.handle.is_running());
    drop(quiet);
    flood.join().unwrap();
    drain.join().unwrap();
    drop(server.handle);
    assert!(eat.join().unwrap() > 10_000);
}

#[test]
fn five_hundred_links() {
    const LINKS: usize = 500;
    assert!(raise_file_limit().unwrap() > 2 * LINKS as u64);
    let config = ReactorConfig {
        max_inbound: LINKS,
        ..config()
    };
    let server = start(
        config,
        Manners {
            echo: true,
            ..Manners::default()
        },
    );
    let client = start(ReactorConfig::new("client"), Manners::default());
    for token in 0..LINKS {
        client.handle.command(Command::Dial(server.addr().into(), token as u64));
    }
    let links: Vec<_> = (0..LINKS).map(|_| client.connected().id).collect();
    for round in 0..20u8 {
        for link in &links {
            client.send(*link, vec![round; 100]);
        }
        for _ in &links {
            assert_eq!(client.received().1, vec![round; 100]);
        }
    }
    assert_eq!(client.handle.link_count(), LINKS);
    assert_eq!(server.handle.link_count(), LINKS);
    client.handle.shutdown();
    for _ in 0..LINKS {
        server.disconnected();
    }
    assert_eq!(server.handle.link_count(), 0);
}
