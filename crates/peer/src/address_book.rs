//! Addresses of peers, kept so that no single source can fill the book.
//!
//! Two tables, as in Bitcoin Core's address manager: *new* for what was only heard, *tried* for what once answered.
//! Each address has exactly one place in each table, drawn with a secret key: in *new* from the group of the address
//! and the group of whoever told us, in *tried* from the address and its group. One source group reaches at most
//! [`NEW_BUCKETS_PER_SOURCE`] of [`NEW_BUCKETS`] buckets, one address group at most [`TRIED_BUCKETS_PER_GROUP`] of
//! [`TRIED_BUCKETS`], and a place that holds a useful address is not given to a newcomer. The book draws from no
//! randomness of its own and reads no clock.

mod file;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, RngCore};
use sha2::{Digest, Sha256};

pub use file::AddressBookError;

use crate::{AsMap, Host, NetAddr, NetClass, NetGroup, Now};

/// Places in one bucket.
pub const BUCKET_SIZE: u32 = 64;
/// Buckets for addresses that were only heard of.
pub const NEW_BUCKETS: u32 = 256;
/// Buckets for addresses that answered.
pub const TRIED_BUCKETS: u32 = 128;
/// How many *new* buckets one source group can reach.
pub const NEW_BUCKETS_PER_SOURCE: u32 = 16;
/// How many *tried* buckets one address group can reach.
pub const TRIED_BUCKETS_PER_GROUP: u32 = 4;

/// An address is not picked again within this many seconds of the last attempt.
const RETRY_SECS: u64 = 60;
/// Within this many seconds of the last attempt an address is picked only rarely.
const RARELY_SECS: u64 = 600;
/// An address not seen for this many seconds is worth nothing (30 days).
const HORIZON_SECS: u64 = 30 * 24 * 3600;
/// Attempts without any success after which a new address is worth nothing.
const NEW_RETRIES: u32 = 3;
/// Attempts since the last success after which an address is worth nothing...
const MAX_FAILURES: u32 = 10;
/// ...when that success is older than this (7 days).
const MIN_FAIL_SECS: u64 = 7 * 24 * 3600;
/// A claimed time may lie this far ahead of our clock.
const MAX_FUTURE_SECS: u64 = 600;
/// A tried address that answered within this time keeps its place against another that wants it.
const KEEP_SECS: u64 = 4 * 3600;
/// How often [`AddressBook::pick`] draws before it gives up.
const PICK_DRAWS: u32 = 128;

/// Which addresses a book takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reach {
    /// Only those reachable over the public internet.
    #[default]
    Public,
    /// Loopback and private ones too: regtest, the simulator, a network at home.
    Anywhere,
}

/// One address and what is known about it. Times are Unix seconds; zero means never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// The peer's listening address.
    pub addr: NetAddr,
    /// The service bits that it, or somebody in its name, announced.
    pub services: u64,
    /// When it was last seen alive, as claimed by others until we connect ourselves.
    pub time: u64,
    /// Who told us.
    pub source: Host,
    /// Dials since the last success.
    pub attempts: u32,
    /// The last dial.
    pub last_try: u64,
    /// The last success.
    pub last_success: u64,
    /// Whether it stands in the table of those that answered.
    pub tried: bool,
}

impl AddressEntry {
    /// Whether the address is not worth a place.
    fn is_stale(&self, now: u64) -> bool {
        if now.saturating_sub(self.last_try) < RETRY_SECS && self.last_try > 0 {
            return false;
        }
        self.time > now.saturating_add(MAX_FUTURE_SECS)
            || now.saturating_sub(self.time) > HORIZON_SECS
            || (self.last_success == 0 && self.attempts >= NEW_RETRIES)
            || (self.attempts >= MAX_FAILURES && now.saturating_sub(self.last_success) > MIN_FAIL_SECS)
    }

    /// The chance to be picked once drawn, in thousandths.
    fn chance(&self, now: u64) -> u64 {
        let mut chance = 1000;
        if now.saturating_sub(self.last_try) < RARELY_SECS {
            chance = 10;
        }
        for _ in 0..self.attempts.min(8) {
            chance = chance * 2 / 3;
        }
        chance.max(1)
    }
}

/// A place: the bucket times [`BUCKET_SIZE`] plus the position in it.
type Place = u32;

/// The book. At most [`NEW_BUCKETS`] + [`TRIED_BUCKETS`] times [`BUCKET_SIZE`] addresses; memory grows with what is
/// in it.
#[derive(Clone, Debug)]
pub struct AddressBook {
    key: [u8; 32],
    reach: Reach,
    as_map: Option<Arc<AsMap>>,
    new: BTreeMap<Place, AddressEntry>,
    tried: BTreeMap<Place, AddressEntry>,
    index: BTreeMap<NetAddr, (bool, Place)>,
    /// The latest instant any caller named, in Unix seconds.
    clock: u64,
}

impl AddressBook {
    /// An empty book. The key must be secret: whoever knows it can aim at buckets.
    pub fn new(key: [u8; 32], reach: Reach) -> Self {
        Self {
            key,
            reach,
            as_map: None,
            new: BTreeMap::new(),
            tried: BTreeMap::new(),
            index: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Groups addresses by this map from now on; what is in the book gets new places.
    pub fn set_as_map(&mut self, map: Option<Arc<AsMap>>) {
        self.as_map = map;
        self.index.clear();
        let (tried, new) = (std::mem::take(&mut self.tried), std::mem::take(&mut self.new));
        for entry in tried.into_values().chain(new.into_values()) {
            self.import(entry);
        }
    }

    /// The map by which addresses are grouped.
    pub fn as_map(&self) -> Option<&Arc<AsMap>> {
        self.as_map.as_ref()
    }

    /// The network group of a host.
    pub fn group(&self, host: &Host) -> NetGroup {
        NetGroup::of(*host, self.as_map.as_deref())
    }

    /// The autonomous system of a host, when a map names it.
    pub fn system(&self, host: &Host) -> Option<u32> {
        self.as_map.as_ref()?.system(host.ip()?)
    }

    /// Notes an address heard from `source`, alive at `time` (Unix seconds, a claim). Returns whether the book now
    /// holds an address that it did not hold before.
    pub fn add(&mut self, addr: impl Into<NetAddr>, services: u64, time: u64, source: impl Into<Host>) -> bool {
        let addr = addr.into();
        if !self.takes(addr) {
            return false;
        }
        if let Some(known) = self.entry_mut(&addr) {
            known.services |= services;
            self.refresh(addr, time);
            return false;
        }
        self.insert_new(AddressEntry {
            addr,
            services,
            time,
            source: source.into(),
            attempts: 0,
            last_try: 0,
            last_success: 0,
            tried: false,
        })
    }

    /// Notes that we dial `addr`.
    pub fn attempt(&mut self, addr: impl Into<NetAddr>, now: Now) {
        let now = self.tick(now);
        if let Some(entry) = self.entry_mut(&addr.into()) {
            entry.last_try = now;
            entry.attempts = entry.attempts.saturating_add(1);
        }
    }

    /// Notes that `addr`, dialled by us, answered as a peer of our network; it moves to the tried table unless
    /// its place there belongs to an address that answered lately.
    pub fn connected(&mut self, addr: impl Into<NetAddr>, now: Now) {
        let now = self.tick(now);
        let addr = addr.into();
        if !self.takes(addr) {
            return;
        }
        let mut entry = match self.take_out(&addr) {
            Some(entry) => entry,
            None => AddressEntry {
                addr,
                services: 0,
                time: now,
                source: addr.host,
                attempts: 0,
                last_try: now,
                last_success: now,
                tried: false,
            },
        };
        entry.attempts = 0;
        entry.last_try = now;
        entry.last_success = now;
        entry.time = entry.time.clamp(now.saturating_sub(HORIZON_SECS / 2), now);
        self.insert_tried(entry);
    }

    /// Sets the service bits that the peer itself announced.
    pub fn set_services(&mut self, addr: impl Into<NetAddr>, services: u64) {
        if let Some(entry) = self.entry_mut(&addr.into()) {
            entry.services = services;
        }
    }

    /// Notes that a peer we were connected to was alive at `now`. Call it when the connection ends, so that the
    /// times we give out do not tell whom we are connected to.
    pub fn seen(&mut self, addr: impl Into<NetAddr>, now: Now) {
        let now = self.tick(now);
        if let Some(entry) = self.entry_mut(&addr.into()) {
            entry.time = now;
        }
    }

    /// Forgets an address.
    pub fn remove(&mut self, addr: impl Into<NetAddr>) -> bool {
        self.take_out(&addr.into()).is_some()
    }

    /// Draws an address to dial: from either table with equal chance, from each bucket with equal chance, less
    /// likely the more often it failed, never one dialled within the last minute. `None` when nothing fits.
    pub fn pick(&mut self, rng: &mut impl RngCore, now: Now) -> Option<NetAddr> {
        self.pick_with(rng, now, |_| true)
    }

    /// Like [`AddressBook::pick`], but only among addresses that `fits` accepts (not connected yet, useful
    /// services, another group).
    pub fn pick_with(
        &mut self,
        rng: &mut impl RngCore,
        now: Now,
        mut fits: impl FnMut(&AddressEntry) -> bool,
    ) -> Option<NetAddr> {
        let now = self.tick(now);
        let mut factor = 1000u64;
        for _ in 0..PICK_DRAWS {
            let tried = match (self.new.is_empty(), self.tried.is_empty()) {
                (true, true) => return None,
                (true, false) => true,
                (false, true) => false,
                (false, false) => rng.random_bool(0.5),
            };
            let entry = if tried {
                draw(&self.tried, TRIED_BUCKETS, rng)
            } else {
                draw(&self.new, NEW_BUCKETS, rng)
            }?;
            let lately = entry.last_try > 0 && now.saturating_sub(entry.last_try) < RETRY_SECS;
            if lately || !fits(entry) {
                continue;
            }
            // Thousandths times thousandths; the factor grows so that rarely picked ones get their turn.
            if entry.chance(now) * factor >= rng.random_range(0..1_000_000) {
                return Some(entry.addr);
            }
            factor = (factor * 6 / 5).min(1_000_000);
        }
        None
    }

    /// Up to `max` addresses worth giving to others, in random order: address, services, Unix seconds last seen.
    pub fn sample(&mut self, rng: &mut impl RngCore, max: usize, now: Now) -> Vec<(NetAddr, u64, u64)> {
        let now = self.tick(now);
        let mut all: Vec<&AddressEntry> = self.iter().filter(|entry| !entry.is_stale(now)).collect();
        let count = max.min(all.len());
        let mut picked = Vec::with_capacity(count);
        for place in 0..count {
            let other = rng.random_range(place..all.len());
            all.swap(place, other);
            let entry = all[place];
            picked.push((entry.addr, entry.services, entry.time));
        }
        picked
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether the book is empty.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many of them answered once.
    pub fn tried_len(&self) -> usize {
        self.tried.len()
    }

    /// What is known about an address.
    pub fn entry(&self, addr: &NetAddr) -> Option<&AddressEntry> {
        let (tried, place) = self.index.get(addr)?;
        self.table(*tried).get(place)
    }

    /// The entries of a table, that of those who answered or the other: bucket, position in it, entry.
    pub fn places(&self, tried: bool) -> impl Iterator<Item = (u32, u32, &AddressEntry)> {
        let place = |(place, entry)| (place / BUCKET_SIZE, place % BUCKET_SIZE, entry);
        self.table(tried).iter().map(place)
    }

    /// All entries, in an order that depends on the key only.
    pub fn iter(&self) -> impl Iterator<Item = &AddressEntry> {
        self.tried.values().chain(self.new.values())
    }

    /// Puts in an entry as it was saved; it yields to what already stands in its place.
    pub fn import(&mut self, entry: AddressEntry) -> bool {
        if !self.takes(entry.addr) || self.index.contains_key(&entry.addr) {
            return false;
        }
        if entry.tried {
            self.insert_tried(entry);
            true
        } else {
            self.insert_new(entry)
        }
    }

    fn takes(&self, addr: NetAddr) -> bool {
        // Ports mean nothing on I2P.
        let port = (addr.port == 0) == (addr.host.class() == NetClass::I2p);
        port && match (self.reach, addr.host) {
            (Reach::Anywhere, Host::Ip(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
            (Reach::Public, host) => host.is_public(),
            (Reach::Anywhere, _) => true,
        }
    }

    fn tick(&mut self, now: Now) -> u64 {
        self.clock = self.clock.max(now.unix_secs());
        now.unix_secs()
    }

    /// Takes over a newer claim of life, unless it lies in the future.
    fn refresh(&mut self, addr: NetAddr, time: u64) {
        let limit = self.clock.saturating_add(MAX_FUTURE_SECS);
        if let Some(entry) = self.entry_mut(&addr)
            && time <= limit
            && time > entry.time
        {
            entry.time = time;
        }
    }

    fn table(&self, tried: bool) -> &BTreeMap<Place, AddressEntry> {
        if tried { &self.tried } else { &self.new }
    }

    fn entry_mut(&mut self, addr: &NetAddr) -> Option<&mut AddressEntry> {
        let (tried, place) = *self.index.get(addr)?;
        let table = if tried { &mut self.tried } else { &mut self.new };
        table.get_mut(&place)
    }

    fn take_out(&mut self, addr: &NetAddr) -> Option<AddressEntry> {
        let (tried, place) = self.index.remove(addr)?;
        let table = if tried { &mut self.tried } else { &mut self.new };
        table.remove(&place)
    }

    /// Gives the entry its place among the new, unless a better one stands there.
    fn insert_new(&mut self, mut entry: AddressEntry) -> bool {
        entry.tried = false;
        let place = self.new_place(&entry);
        if let Some(there) = self.new.get(&place) {
            if !there.is_stale(self.clock) {
                return false;
            }
            self.index.remove(&there.addr);
        }
        self.index.insert(entry.addr, (false, place));
        self.new.insert(place, entry);
        true
    }

    /// Gives the entry its place among the tried; whoever loses it goes back among the new.
    fn insert_tried(&mut self, mut entry: AddressEntry) {
        let place = self.tried_place(&entry);
        if let Some(there) = self.tried.get(&place)
            && self.clock.saturating_sub(there.last_success) < KEEP_SECS
        {
            self.insert_new(entry);
            return;
        }
        entry.tried = true;
        self.index.insert(entry.addr, (true, place));
        if let Some(loser) = self.tried.insert(place, entry) {
            self.index.remove(&loser.addr);
            self.insert_new(loser);
        }
    }

    fn new_place(&self, entry: &AddressEntry) -> Place {
        let group = self.group(&entry.addr.host).to_bytes();
        let source = self.group(&entry.source).to_bytes();
        let row = self.hash(b"new row", &[&group, &source]) % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.hash(b"new bucket", &[&source, &row.to_be_bytes()]) % NEW_BUCKETS;
        self.place(b"new", bucket, entry)
    }

    fn tried_place(&self, entry: &AddressEntry) -> Place {
        let group = self.group(&entry.addr.host).to_bytes();
        let addr = addr_bytes(&entry.addr);
        let row = self.hash(b"tried row", &[&addr]) % TRIED_BUCKETS_PER_GROUP;
        let bucket = self.hash(b"tried bucket", &[&group, &row.to_be_bytes()]) % TRIED_BUCKETS;
        self.place(b"tried", bucket, entry)
    }

    fn place(&self, table: &[u8], bucket: u32, entry: &AddressEntry) -> Place {
        let addr = addr_bytes(&entry.addr);
        bucket * BUCKET_SIZE + self.hash(table, &[&bucket.to_be_bytes(), &addr]) % BUCKET_SIZE
    }

    fn hash(&self, tag: &[u8], parts: &[&[u8]]) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.key);
        for part in std::iter::once(&tag).chain(parts) {
            // No part is longer than a socket address.
            hash.update([part.len() as u8]);
            hash.update(part);
        }
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// A random entry: each bucket that is not empty has about the same chance, however full it is.
fn draw<'a>(
    table: &'a BTreeMap<Place, AddressEntry>,
    buckets: u32,
    rng: &mut impl RngCore,
) -> Option<&'a AddressEntry> {
    let from = rng.random_range(0..buckets) * BUCKET_SIZE;
    let (place, _) = table.range(from..).next().or_else(|| table.iter().next())?;
    let first = place / BUCKET_SIZE * BUCKET_SIZE;
    let middle = first + rng.random_range(0..BUCKET_SIZE);
    table
        .range(middle..first + BUCKET_SIZE)
        .next()
        .or_else(|| table.range(first..middle).next())
        .map(|(_, entry)| entry)
}

/// The network, the host and the port, as BIP 155 writes them.
fn addr_bytes(addr: &NetAddr) -> Vec<u8> {
    addr.host
        .with_bytes(|network, bytes| [&[network], bytes, &addr.port.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests;
