//! The wire of Bitcoin. The input is a cutting seed, then frames: a number that picks the command, a length of two
//! bytes, a payload, to which envelope and checksum are made. Number 255 puts the bytes into the stream as they are.
#![no_main]

use bitcoin::hashes::{Hash, sha256d};
use dunlin_fuzz::{decode, take};
use dunlin_peer::{Codec as _, SendBuf};
use dunlin_relay::{Codec, HEADER_LEN, MAX_ADDR, MAX_HEADERS, MAX_INV, MAX_LOCATOR, MAX_PAYLOAD, Message};
use libfuzzer_sys::fuzz_target;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

const COMMANDS: [&str; 28] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "sendheaders",
    "feefilter",
    "ping",
    "pong",
    "getaddr",
    "addr",
    "addrv2",
    "inv",
    "getdata",
    "notfound",
    "getheaders",
    "getblocks",
    "headers",
    "tx",
    "block",
    "mempool",
    "alert",
    "sendcmpct",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "feature",
    "getbspent",
    "bspent",
];

fn stream(mut data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while !data.is_empty() {
        let command = take(&mut data);
        let len = usize::from(u16::from_be_bytes([take(&mut data), take(&mut data)]));
        let (payload, rest) = data.split_at(len.min(data.len()));
        data = rest;
        if command == 255 {
            stream.extend_from_slice(payload);
            continue;
        }
        let mut name = [0; 12];
        let text = COMMANDS[usize::from(command) % COMMANDS.len()].as_bytes();
        name[..text.len()].copy_from_slice(text);
        stream.extend(MAGIC);
        stream.extend(name);
        stream.extend((payload.len() as u32).to_le_bytes());
        stream.extend(&sha256d::Hash::hash(payload).as_byte_array()[..4]);
        stream.extend_from_slice(payload);
    }
    stream
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut out = SendBuf::default();
    Codec::new(MAGIC).encode(message, &mut out);
    out.to_vec()
}

fn check_bounds(message: &Message) {
    match message {
        Message::Addr(list) | Message::AddrV2(list) => assert!(list.len() <= MAX_ADDR),
        Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => assert!(list.len() <= MAX_INV),
        Message::GetHeaders(locator) | Message::GetBlocks(locator) => assert!(locator.hashes.len() <= MAX_LOCATOR),
        Message::Headers(list) => assert!(list.len() <= MAX_HEADERS),
        Message::CompactBlock(block) => assert!(block.tx_count() <= usize::from(u16::MAX)),
        _ => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let seed = take(&mut data);
    let stream = stream(data);
    let most = HEADER_LEN + MAX_PAYLOAD;
    let (whole, error) = decode(&mut Codec::new(MAGIC), &stream, 0, usize::MAX);
    let (messages, other) = decode(&mut Codec::new(MAGIC), &stream, seed.max(1), most);
    assert_eq!(messages.len(), whole.len());
    assert_eq!(other, error);
    for (message, same) in messages.iter().zip(&whole) {
        check_bounds(message);
        assert_eq!(message.command(), same.command());
        let bytes = bytes_of(message);
        assert_eq!(bytes, bytes_of(same), "pieces changed {message:?}");
        if matches!(message, Message::Unknown { .. } | Message::Malformed { .. }) {
            continue;
        }
        let (again, error) = decode(&mut Codec::new(MAGIC), &bytes, 0, most);
        assert_eq!(error, None);
        let [again] = &again[..] else {
            panic!("{message:?} became {again:?}")
        };
        assert_eq!(bytes_of(again), bytes, "{message:?} became {again:?}");
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
});
