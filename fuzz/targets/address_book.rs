//! A saved address book: the input is its key, entries and what is done with it afterwards; head and checksum are
//! put around the entries.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use arbitrary::Arbitrary;
use bitcoin::hashes::{Hash, sha256};
use dunlin_peer::{AddressBook, AsMap, Host, NetAddr, Now, Reach};
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

#[derive(Arbitrary, Debug)]
struct Input {
    public: bool,
    key: [u8; 32],
    entries: Vec<Entry>,
    now: u64,
    ops: Vec<Op>,
    /// A map of autonomous systems, if it is one.
    as_map: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    addr: Name,
    port: u16,
    numbers: [u8; 16],
    source: Name,
    rest: [u8; 21],
}

/// A host as the book writes it.
#[derive(Arbitrary, Debug)]
enum Name {
    V4([u8; 4]),
    V6([u8; 16]),
    Onion([u8; 32]),
    I2p([u8; 32]),
    Cjdns([u8; 15]),
    Any(u8, Vec<u8>),
}

impl Name {
    fn put(&self, out: &mut Vec<u8>) -> bool {
        let cjdns;
        let (network, bytes): (u8, &[u8]) = match self {
            Self::V4(bytes) => (1, bytes),
            Self::V6(bytes) => (2, bytes),
            Self::Onion(bytes) => (4, bytes),
            Self::I2p(bytes) => (5, bytes),
            Self::Cjdns(bytes) => {
                cjdns = [&[0xfc], &bytes[..]].concat();
                (6, &cjdns)
            }
            Self::Any(network, bytes) => (*network, &bytes[..bytes.len().min(255)]),
        };
        out.extend([network, bytes.len() as u8]);
        out.extend(bytes);
        matches!(Host::from_bytes(network, bytes), Ok(Some(_)))
    }
}

#[derive(Arbitrary, Debug)]
enum Op {
    Add {
        ip: IpAddr,
        port: u16,
        time: u64,
        source: IpAddr,
    },
    Pick,
    Attempt(u8),
    Connected(u8),
    Seen(u8),
    Remove(u8),
    Sample(u8),
    Wait {
        secs: u32,
    },
}

fuzz_target!(|input: Input| {
    let reach = if input.public { Reach::Public } else { Reach::Anywhere };
    let mut bytes = b"DLNADDR\x02".to_vec();
    bytes.extend(input.key);
    bytes.extend((input.entries.len() as u32).to_be_bytes());
    let mut whole = true;
    for entry in &input.entries {
        whole &= entry.addr.put(&mut bytes);
        bytes.extend(entry.port.to_be_bytes());
        bytes.extend(entry.numbers);
        whole &= entry.source.put(&mut bytes);
        bytes.extend(entry.rest);
    }
    // Damaged: no checksum.
    assert!(AddressBook::from_bytes(&bytes, reach).is_err());
    bytes.extend(sha256::Hash::hash(&bytes).as_byte_array());
    let Ok(mut book) = AddressBook::from_bytes(&bytes, reach) else {
        return assert!(!whole, "a whole book");
    };
    check(&book, reach);
    if let Ok(map) = AsMap::new(input.as_map) {
        book.set_as_map(Some(map.into()));
        check(&book, reach);
    }

    let mut rng = ChaCha8Rng::from_seed(input.key);
    let mut now = Now::from_unix_secs(input.now);
    for op in input.ops {
        let nth = |n: u8| book.iter().nth(usize::from(n)).map(|entry| entry.addr);
        match op {
            Op::Add { ip, port, time, source } => {
                book.add(NetAddr { host: ip.into(), port }, 1, time, source);
            }
            Op::Pick => {
                if let Some(addr) = book.pick(&mut rng, now) {
                    assert!(book.entry(&addr).is_some());
                }
            }
            Op::Attempt(n) => nth(n).into_iter().for_each(|addr| book.attempt(addr, now)),
            Op::Connected(n) => nth(n).into_iter().for_each(|addr| book.connected(addr, now)),
            Op::Seen(n) => nth(n).into_iter().for_each(|addr| book.seen(addr, now)),
            Op::Remove(n) => nth(n).into_iter().for_each(|addr| assert!(book.remove(addr))),
            Op::Sample(n) => assert!(book.sample(&mut rng, n.into(), now).len() <= n.into()),
            Op::Wait { secs } => now = now + Duration::from_secs(secs.into()),
        }
    }
    check(&book, reach);
});

/// Every entry is found under its address, and a saved book is the same book.
fn check(book: &AddressBook, reach: Reach) {
    assert_eq!(book.iter().count(), book.len());
    for entry in book.iter() {
        assert_eq!(book.entry(&entry.addr), Some(entry));
    }
    assert_eq!(book.iter().filter(|entry| entry.tried).count(), book.tried_len());
    let bytes = book.to_bytes();
    let again = AddressBook::from_bytes(&bytes, reach).expect("what we save is read");
    assert_eq!(again.to_bytes(), bytes);
}
