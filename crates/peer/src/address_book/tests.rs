#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const T0: u64 = 1_700_000_000;

fn book() -> AddressBook {
    let mut book = AddressBook::new([7; 32], Reach::Public);
    book.tick(at(0));
    book
}

fn at(secs: u64) -> Now {
    Now::from_unix_secs(T0 + secs)
}

fn addr(group: u16, host: u16) -> NetAddr {
    let [a, b] = group.to_be_bytes();
    let [c, d] = host.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(a, b, c, d), 8333)).into()
}

/// `count` addresses, each in a group of its own, told by sources in groups of their own.
fn fill_honest(book: &mut AddressBook, count: u16) -> BTreeSet<NetAddr> {
    (0..count)
        .map(|number| (addr(0x2000 + number, 1), addr(0x4000 + number, 9).host))
        .filter(|(addr, source)| book.add(*addr, 9, T0 - 3600, *source))
        .map(|(addr, _)| addr)
        .collect()
}

#[test]
fn add_refuses_what_cannot_be_reached() {
    let mut book = book();
    let source = addr(0x0808, 1).host;
    for text in [
        "127.0.0.1:8333",
        "10.0.0.1:8333",
        "8.8.8.8:0",
        "[::1]:8333",
        "[fe80::1]:8333",
    ] {
        assert!(!book.add(text.parse::<NetAddr>().unwrap(), 1, T0, source), "{text}");
    }
    assert!(book.add("8.8.8.8:8333".parse::<NetAddr>().unwrap(), 1, T0, source));
    assert!(!book.add("[::ffff:8.8.8.8]:8333".parse::<NetAddr>().unwrap(), 8, T0 + 5, source));
    assert_eq!(book.len(), 1);
    let entry = book.entry(&"8.8.8.8:8333".parse().unwrap()).unwrap();
    assert_eq!((entry.services, entry.time), (9, T0 + 5));

    let mut local = AddressBook::new([7; 32], Reach::Anywhere);
    assert!(local.add("127.0.0.1:8333".parse::<NetAddr>().unwrap(), 1, T0, source));
    assert!(!local.add("0.0.0.0:8333".parse::<NetAddr>().unwrap(), 1, T0, source));
}

#[test]
fn one_source_group_fills_a_bounded_share_and_displaces_nobody() {
    let mut book = book();
    let honest = fill_honest(&mut book, 3000);
    assert!(honest.len() > 2500);

    // A /16 of sources floods addresses from every group there is.
    let mut accepted = 0u32;
    for round in 0..200_000u32 {
        let source = addr(0x5a5a, (round % 65_000) as u16).host;
        let group = 0x0b00 + (round.wrapping_mul(2_654_435_761) >> 20) as u16;
        let claim = NetAddr {
            port: 1 + (round % 60_000) as u16,
            ..addr(group, (round >> 3) as u16)
        };
        accepted += u32::from(book.add(claim, 9, T0, source));
    }
    assert!(accepted <= NEW_BUCKETS_PER_SOURCE * BUCKET_SIZE, "{accepted}");
    assert!(honest.iter().all(|addr| book.entry(addr).is_some()));

    // What is drawn is mostly honest although the attacker was told of 60 times as many.
    let mut rng = StdRng::seed_from_u64(1);
    let mine = (0..2000)
        .filter(|_| honest.contains(&book.pick(&mut rng, at(0)).unwrap()))
        .count();
    assert!(mine > 1600, "{mine}");
}

#[test]
fn one_address_group_holds_a_bounded_share_of_the_tried() {
    let mut book = book();
    for number in 0..20_000 {
        book.connected(addr(0x0808, number), at(0));
    }
    assert!(book.tried_len() <= (TRIED_BUCKETS_PER_GROUP * BUCKET_SIZE) as usize);
    assert!(book.tried_len() > 100);
    assert!(book.len() <= book.tried_len() + NEW_BUCKETS_PER_SOURCE as usize * BUCKET_SIZE as usize);
}

#[test]
fn the_book_never_grows_beyond_its_tables() {
    let mut book = book();
    let most = ((NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_SIZE) as usize;
    for number in 0..60_000u32 {
        let group = 0x0b00 + (number % 20_000) as u16;
        book.add(addr(group, (number / 7) as u16), 1, T0, addr(group ^ 0x1111, 3).host);
        if number % 3 == 0 {
            book.connected(addr(group, (number / 7) as u16), at(0));
        }
    }
    assert!(book.len() <= most);
    assert_eq!(book.len(), book.iter().count());
    assert_eq!(book.len(), book.new.len() + book.tried.len());
    for entry in book.iter() {
        assert_eq!(book.entry(&entry.addr), Some(entry));
    }
}

#[test]
fn success_moves_to_tried_and_failure_makes_room() {
    let mut book = book();
    let peer = addr(0x0808, 1);
    book.add(peer, 1, T0, addr(0x0909, 1).host);
    book.attempt(peer, at(1));
    assert_eq!(book.entry(&peer).unwrap().attempts, 1);
    book.connected(peer, at(2));
    let entry = book.entry(&peer).unwrap();
    assert!(entry.tried && entry.attempts == 0 && entry.last_success == T0 + 2);

    let dead = addr(0x0a0b, 1);
    assert!(!book.add(dead, 1, T0, peer.host), "10.0.0.0/8 is private");
    let dead = addr(0x0b0b, 1);
    book.add(dead, 1, T0, peer.host);
    for try_number in 0..3 {
        book.attempt(dead, at(100 * try_number));
    }
    assert!(book.entry(&dead).unwrap().is_stale(T0 + 1000));
    assert!(
        !book
            .sample(&mut StdRng::seed_from_u64(1), 10, at(1000))
            .iter()
            .any(|(addr, ..)| *addr == dead)
    );
}

#[test]
fn pick_skips_the_just_dialled_and_ends_when_nothing_fits() {
    let mut book = book();
    let mut rng = StdRng::seed_from_u64(4);
    assert_eq!(book.pick(&mut rng, at(0)), None);
    let peer = addr(0x0808, 1);
    book.add(peer, 1, T0, peer.host);
    assert_eq!(book.pick(&mut rng, at(0)), Some(peer));
    book.attempt(peer, at(0));
    assert_eq!(book.pick(&mut rng, at(30)), None);
    assert_eq!(book.pick(&mut rng, at(61)), Some(peer), "rarely, but alone it is found");
    assert_eq!(book.pick_with(&mut rng, at(1000), |entry| entry.addr != peer), None);
}

#[test]
fn sample_is_bounded_distinct_and_reproducible() {
    let mut book = book();
    fill_honest(&mut book, 500);
    let first = book.sample(&mut StdRng::seed_from_u64(3), 100, at(0));
    let again = book.sample(&mut StdRng::seed_from_u64(3), 100, at(0));
    assert_eq!(first, again);
    assert_eq!(first.len(), 100);
    assert_eq!(first.iter().map(|(addr, ..)| addr).collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(
        book.sample(&mut StdRng::seed_from_u64(3), 10_000, at(0)).len(),
        book.len()
    );
}

#[test]
fn claims_of_the_future_are_not_believed() {
    let mut book = book();
    let peer = addr(0x0808, 1);
    book.add(peer, 1, T0, peer.host);
    book.add(peer, 1, T0 + 100_000, peer.host);
    assert_eq!(book.entry(&peer).unwrap().time, T0);
    book.add(addr(0x0909, 1), 1, u64::MAX, peer.host);
    assert_eq!(book.sample(&mut StdRng::seed_from_u64(3), 9, at(0)).len(), 1);
}

#[test]
fn saved_books_come_back_and_damage_is_noticed() {
    let mut book = book();
    let honest = fill_honest(&mut book, 300);
    for (number, addr) in honest.iter().take(50).enumerate() {
        book.attempt(*addr, at(number as u64));
        book.connected(*addr, at(number as u64));
    }
    book.add(
        "[2a01:4f8::7]:8333".parse::<NetAddr>().unwrap(),
        1033,
        T0,
        addr(0x0808, 1).host,
    );
    let bytes = book.to_bytes();
    let back = AddressBook::from_bytes(&bytes, Reach::Public).unwrap();
    assert!(back.iter().eq(book.iter()));
    assert_eq!(back.to_bytes(), bytes);
    assert_eq!(back.tried_len(), book.tried_len());

    assert_eq!(
        AddressBook::from_bytes(b"", Reach::Public).unwrap_err(),
        AddressBookError::Format
    );
    for cut in [8, 44, 75, 76, bytes.len() - 1] {
        let cut = AddressBook::from_bytes(&bytes[..cut], Reach::Public);
        assert_eq!(cut.unwrap_err(), AddressBookError::Damaged);
    }
    for place in (8..bytes.len()).step_by(97) {
        let mut bad = bytes.clone();
        bad[place] ^= 0x40;
        let bad = AddressBook::from_bytes(&bad, Reach::Public);
        assert_eq!(bad.unwrap_err(), AddressBookError::Damaged);
    }
}

const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";
const I2P: &str = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0";

#[test]
fn names_of_hidden_networks_are_kept_and_saved() {
    let mut book = book();
    let source = addr(0x0808, 1).host;
    let names = [ONION, I2P].map(|text| text.parse::<NetAddr>().unwrap());
    let cjdns = "[fc00::7]:8333".parse::<NetAddr>().unwrap();
    assert!(!book.add(cjdns, 1, T0, source), "private to all but CJDNS");
    for name in names.into_iter().chain([cjdns.on_cjdns()]) {
        assert!(book.add(name, 1, T0, source), "{name}");
    }
    let ported = NetAddr { port: 8333, ..names[1] };
    assert!(!book.add(ported, 1, T0, source), "I2P has no ports");
    book.connected(names[0], at(5));
    let back = AddressBook::from_bytes(&book.to_bytes(), Reach::Public).unwrap();
    assert!(back.iter().eq(book.iter()));
    assert!(back.entry(&names[0]).unwrap().tried);
}

#[test]
fn a_map_of_systems_moves_addresses_together() {
    // Returns system 5: `0`, then class 0, then 4 in 15 bits.
    let everything = Arc::new(AsMap::new(vec![0, 0b0100_0000, 0]).unwrap());
    let mut book = book();
    let (one, two) = (addr(0x0808, 1), addr(0x0909, 1));
    book.add(one, 1, T0, two.host);
    assert_ne!(book.group(&one.host), book.group(&two.host));
    book.set_as_map(Some(everything));
    assert_eq!(book.group(&one.host), book.group(&two.host));
    assert_eq!(book.system(&one.host), book.system(&two.host));
    assert!(book.system(&one.host).is_some() && book.len() == 1 && book.entry(&one).is_some());
    let onion: NetAddr = ONION.parse().unwrap();
    assert!(book.system(&onion.host).is_none());
}
