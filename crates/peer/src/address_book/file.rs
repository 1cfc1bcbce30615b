//! The address book as bytes.
//!
//! ```text
//! magic "DLNADDR" | version 2 | key 32 | count u32 | count × entry | SHA-256 of all before it
//! entry: host | port u16 | services u64 | time u64 | source host | attempts u32 | last try u64 | last success u64
//!        | tried u8
//! host:  network u8 (BIP 155) | length u8 | bytes
//! ```
//! Numbers are big-endian.

use bytes::{Buf, BufMut};
use sha2::{Digest, Sha256};

use super::{AddressBook, AddressEntry, BUCKET_SIZE, NEW_BUCKETS, Reach, TRIED_BUCKETS};
use crate::{Host, NetAddr};

const MAGIC: &[u8; 8] = b"DLNADDR\x02";
const HEAD: usize = 8 + 32 + 4;
/// What an entry takes besides its two hosts.
const NUMBERS: usize = 2 + 8 + 8 + 4 + 8 + 8 + 1;
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
        let mut out = Vec::with_capacity(HEAD + self.len() * (NUMBERS + 12) + CHECKSUM);
        out.put_slice(MAGIC);
        out.put_slice(&self.key);
        // The tables bound the count far below 2^32.
        out.put_u32(self.len() as u32);
        for entry in self.iter() {
            put_host(&mut out, &entry.addr.host);
            out.put_u16(entry.addr.port);
            out.put_u64(entry.services);
            out.put_u64(entry.time);
            put_host(&mut out, &entry.source);
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
        if count > most {
            return Err(AddressBookError::Damaged);
        }
        let mut book = Self::new(key, reach);
        for _ in 0..count {
            let entry = take_entry(&mut input).ok_or(AddressBookError::Damaged)?;
            book.import(entry);
        }
        if !input.is_empty() {
            return Err(AddressBookError::Damaged);
        }
        Ok(book)
    }
}

fn put_host(out: &mut Vec<u8>, host: &Host) {
    host.with_bytes(|network, bytes| {
        out.put_u8(network);
        // No network's addresses are longer than 32 bytes.
        out.put_u8(bytes.len() as u8);
        out.put_slice(bytes);
    });
}

fn take_host(input: &mut &[u8]) -> Option<Host> {
    let (network, len) = (input.try_get_u8().ok()?, input.try_get_u8().ok()?);
    let (bytes, rest) = input.split_at_checked(len.into())?;
    *input = rest;
    Host::from_bytes(network, bytes).ok().flatten()
}

fn take_entry(input: &mut &[u8]) -> Option<AddressEntry> {
    Some(AddressEntry {
        addr: NetAddr {
            host: take_host(input)?,
            port: input.try_get_u16().ok()?,
        },
        services: input.try_get_u64().ok()?,
        time: input.try_get_u64().ok()?,
        source: take_host(input)?,
        attempts: input.try_get_u32().ok()?,
        last_try: input.try_get_u64().ok()?,
        last_success: input.try_get_u64().ok()?,
        tried: input.try_get_u8().ok()? != 0,
    })
}
