//! The address book as bytes.
//!
//! ```text
//! magic "DLNADDR" | version 1 | key 32 | count u32 | count × entry 71 | SHA-256 of all before it
//! entry: ip 16 (IPv4 mapped) | port u16 | services u64 | time u64 | source ip 16 | attempts u32
//!        | last try u64 | last success u64 | tried u8
//! ```
//! Numbers are big-endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use sha2::{Digest, Sha256};

use super::{AddressBook, AddressEntry, BUCKET_SIZE, NEW_BUCKETS, Reach, TRIED_BUCKETS, addr_bytes};

const MAGIC: &[u8; 8] = b"DLNADDR\x01";
const HEAD: usize = 8 + 32 + 4;
const ENTRY: usize = 16 + 2 + 8 + 8 + 16 + 4 + 8 + 8 + 1;
const CHECKSUM: usize = 32;

/// A saved address book cannot be read; go on with an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressBookError {
    /// Not an address book, or of another version.
    #[error("not an address book of this version")]
    Format,
    /// Cut off, or changed on disk.
    #[error("the address book is damaged")]
    Damaged,
}

impl AddressBook {
    /// The whole book with its key, to be saved.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.len() * ENTRY + CHECKSUM);
        out.put_slice(MAGIC);
        out.put_slice(&self.key);
        // The tables bound the count far below 2^32.
        out.put_u32(self.len() as u32);
        for entry in self.iter() {
            out.put_slice(&addr_bytes(&entry.addr));
            out.put_u64(entry.services);
            out.put_u64(entry.time);
            out.put_slice(&addr_bytes(&SocketAddr::new(entry.source, 0))[..16]);
            out.put_u32(entry.attempts);
            out.put_u64(entry.last_try);
            out.put_u64(entry.last_success);
            out.put_u8(entry.tried.into());
        }
        let checksum = Sha256::digest(&out);
        out.put_slice(&checksum);
        out
    }

    /// Reads what [`AddressBook::to_bytes`] wrote; entries that `reach` does not admit are left out.
    ///
    /// # Errors
    /// [`AddressBookError`] when the bytes are not a whole book.
    pub fn from_bytes(bytes: &[u8], reach: Reach) -> Result<Self, AddressBookError> {
        if !bytes.starts_with(MAGIC) {
            return Err(AddressBookError::Format);
        }
        let body = bytes.len().checked_sub(CHECKSUM).filter(|body| *body >= HEAD);
        let (body, checksum) = bytes.split_at(body.ok_or(AddressBookError::Damaged)?);
        if Sha256::digest(body)[..] != *checksum {
            return Err(AddressBookError::Damaged);
        }
        let mut input = &body[MAGIC.len()..];
        let mut key = [0; 32];
        input.copy_to_slice(&mut key);
        let count = input.get_u32();
        let most = (NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_SIZE;
        if count > most || input.len() != count as usize * ENTRY {
            return Err(AddressBookError::Damaged);
        }
        let mut book = Self::new(key, reach);
        for _ in 0..count {
            // The length of the body was checked against the count.
            book.import(AddressEntry {
                addr: SocketAddr::new(take_ip(&mut input), input.get_u16()),
                services: input.get_u64(),
                time: input.get_u64(),
                source: take_ip(&mut input),
                attempts: input.get_u32(),
                last_try: input.get_u64(),
                last_success: input.get_u64(),
                tried: input.get_u8() != 0,
            });
        }
        Ok(book)
    }
}

fn take_ip(input: &mut &[u8]) -> IpAddr {
    IpAddr::from(Ipv6Addr::from_bits(input.get_u128())).to_canonical()
}
