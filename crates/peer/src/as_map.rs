//! Maps of addresses to the autonomous systems that announce them, in Bitcoin Core's format (`asmap`).
//!
//! The file is one string of bits, the lowest bit of each byte first, that holds a small program. It reads the 128 bits
//! of an address (IPv4 mapped into IPv6) from the highest on:
//!
//! | bits | instruction | argument |
//! |---|---|---|
//! | `0` | end with this system | a number from 1 on, classes of 15 to 24 bits |
//! | `10` | go on when the next bit of the address is 0, else skip so many bits | from 17 on, classes of 5 to 30 bits |
//! | `110` | the next bits of the address are these (a leading 1 gives their number), else end with the default | from 2 on, classes of 1 to 8 bits |
//! | `111` | from here on this is the default | as for `0` |
//!
//! A number of class k is k ones, a zero (unless the class is the last one), and its place in the class, highest bit
//! first. [`AsMap::new`] walks every path once, so that later look-ups end.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an address.
const ADDRESS_BITS: u32 = 128;
/// Larger files than this are no maps: the real one has about two million bytes.
pub const MAX_AS_MAP: usize = 32 << 20;

/// A map that holds what Bitcoin Core asks of one.
#[derive(Clone, PartialEq, Eq)]
pub struct AsMap {
    bytes: Vec<u8>,
}

/// The bytes are no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid AS map")]
pub struct AsMapError;

impl fmt::Debug for AsMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsMap({} bytes)", self.bytes.len())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Return(u32),
    Jump(usize),
    /// The bits and their number.
    Match(u32, u32),
    Default(u32),
}

/// Reads instructions.
struct Program<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Program<'_> {
    fn end(&self) -> usize {
        self.bytes.len() * 8
    }

    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = (byte >> (self.at % 8)) & 1;
        self.at += 1;
        Some(u32::from(bit))
    }

    /// A number from `least` on, in classes of these many bits.
    fn number(&mut self, least: u32, mut classes: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let last = *classes.end();
        let mut number = least;
        let bits = classes.find(|bits| {
            let here = *bits == last || self.bit() != Some(1);
            if !here {
                number += 1 << bits;
            }
            here
        })?;
        for place in (0..bits).rev() {
            number += self.bit()? << place;
        }
        Some(number)
    }

    fn system(&mut self) -> Option<u32> {
        self.number(1, 15..=24)
    }

    fn step(&mut self) -> Option<Step> {
        if self.bit()? == 0 {
            return self.system().map(Step::Return);
        }
        if self.bit()? == 0 {
            let skip = self.number(17, 5..=30)?;
            return usize::try_from(skip).ok().map(Step::Jump);
        }
        if self.bit()? == 0 {
            let number = self.number(2, 1..=8)?;
            let length = number.ilog2();
            return Some(Step::Match(number - (1 << length), length));
        }
        self.system().map(Step::Default)
    }
}

impl AsMap {
    /// Takes a map that is sound: every path ends, no bit is unreachable, nothing could be written shorter in the ways
    /// that Core refuses.
    ///
    /// # Errors
    /// [`AsMapError`] otherwise.
    pub fn new(bytes: Vec<u8>) -> Result<Self, AsMapError> {
        if bytes.len() > MAX_AS_MAP || !is_sound(&bytes) {
            return Err(AsMapError);
        }
        Ok(Self { bytes })
    }

    /// The system that announces an address; `None` when the map knows none.
    pub fn system(&self, ip: IpAddr) -> Option<u32> {
        let ip: Ipv6Addr = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let (address, mut left) = (ip.to_bits(), ADDRESS_BITS);
        let mut take = |count: u32| -> Option<u32> {
            left = left.checked_sub(count)?;
            u32::try_from((address >> left) & ((1 << count) - 1)).ok()
        };
        let mut program = Program {
            bytes: &self.bytes,
            at: 0,
        };
        let mut default = 0;
        // A sound map consumes bits of the map with every step, so this ends.
        let found = loop {
            match program.step()? {
                Step::Return(system) => break system,
                Step::Jump(skip) => {
                    if take(1)? == 1 {
                        program.at = program.at.checked_add(skip)?;
                    }
                }
                Step::Match(bits, count) => {
                    if take(count)? != bits {
                        break default;
                    }
                }
                Step::Default(system) => default = system,
            }
        };
        (found != 0).then_some(found)
    }
}

/// The kind of the instruction before, where it matters.
#[derive(PartialEq, Eq)]
enum Before {
    Jump,
    Match,
    Default,
}

fn is_sound(bytes: &[u8]) -> bool {
    let mut program = Program { bytes, at: 0 };
    let mut left = ADDRESS_BITS;
    // Where jumps lead, and how many bits of the address are left there; the innermost last.
    let mut jumps: Vec<(usize, u32)> = Vec::new();
    let mut before = Before::Jump;
    let mut short_match = false;
    while program.at < program.end() {
        if jumps.last().is_some_and(|(to, _)| program.at >= *to) {
            return false;
        }
        let Some(step) = program.step() else { return false };
        before = match step {
            Step::Return(_) if before == Before::Default => return false,
            Step::Return(_) => match jumps.pop() {
                None => return pads(program),
                Some((to, there)) if to == program.at => {
                    left = there;
                    Before::Jump
                }
                Some(_) => return false,
            },
            Step::Jump(skip) => {
                let Some(to) = program.at.checked_add(skip).filter(|to| *to <= program.end()) else {
                    return false;
                };
                if left == 0 || jumps.last().is_some_and(|(outer, _)| to >= *outer) {
                    return false;
                }
                left -= 1;
                jumps.push((to, left));
                Before::Jump
            }
            Step::Match(_, count) => {
                short_match &= before == Before::Match;
                if count > left || (count < 8 && short_match) {
                    return false;
                }
                short_match = count < 8;
                left -= count;
                Before::Match
            }
            Step::Default(_) if before == Before::Default => return false,
            Step::Default(_) => Before::Default,
        };
    }
    false
}

/// Whether only the rest of the last byte is left, and it is zero.
fn pads(mut program: Program<'_>) -> bool {
    program.end() - program.at < 8 && std::iter::from_fn(|| program.bit()).all(|bit| bit == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Writes maps.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn put(&mut self, bits: &str) -> &mut Self {
            self.0.extend(bits.bytes().map(|bit| bit == b'1'));
            self
        }

        fn number(&mut self, least: u32, classes: std::ops::RangeInclusive<u32>, number: u32) -> &mut Self {
            let (last, mut rest) = (*classes.end(), number - least);
            for bits in classes {
                if rest < 1 << bits || bits == last {
                    if bits != last {
                        self.0.push(false);
                    }
                    self.0.extend((0..bits).rev().map(|place| rest >> place & 1 == 1));
                    break;
                }
                rest -= 1 << bits;
                self.0.push(true);
            }
            self
        }

        fn ends(&mut self, system: u32) -> &mut Self {
            self.put("0").number(1, 15..=24, system)
        }

        fn bytes(&self) -> Vec<u8> {
            let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
            self.0.chunks(8).map(byte).collect()
        }

        /// Address bits that all IPv4 addresses begin with.
        fn mapped(&mut self) -> &mut Self {
            for byte in [[0u8; 10].as_slice(), &[0xff, 0xff]].concat() {
                self.put("110").number(2, 1..=8, 256 + u32::from(byte));
            }
            self
        }
    }

    fn system(map: &AsMap, text: &str) -> Option<u32> {
        map.system(text.parse().unwrap())
    }

    #[test]
    fn addresses_lead_to_systems() {
        let mut upper = Bits::default();
        upper.ends(70_000);
        let mut lower = Bits::default();
        // 0???????: of these 01000000/8 is system 7, the rest 9.
        lower.put("111").number(1, 15..=24, 9);
        lower.put("110").number(2, 1..=8, 128 + 0b100_0000);
        lower.ends(7);
        let mut whole = Bits::default();
        whole.mapped().put("10");
        whole.number(17, 5..=30, u32::try_from(lower.0.len()).unwrap());
        whole.0.extend(lower.0.iter().chain(&upper.0));
        let map = AsMap::new(whole.bytes()).unwrap();
        assert_eq!(system(&map, "64.1.2.3"), Some(7));
        assert_eq!(system(&map, "65.1.2.3"), Some(9));
        assert_eq!(system(&map, "200.1.2.3"), Some(70_000));
        assert_eq!(system(&map, "2a01::1"), None, "no default was set there");
    }

    #[test]
    fn what_does_not_end_is_no_map() {
        let mut good = Bits::default();
        good.mapped().ends(5);
        let good = good.bytes();
        assert!(AsMap::new(good.clone()).is_ok());
        for cut in 0..good.len() {
            assert_eq!(AsMap::new(good[..cut].to_vec()), Err(AsMapError), "{cut} bytes");
        }
        assert_eq!(AsMap::new([good.as_slice(), &[0]].concat()), Err(AsMapError), "padding");
        let mut twice = Bits::default();
        twice.put("111").number(1, 15..=24, 3).ends(4);
        assert_eq!(
            AsMap::new(twice.bytes()),
            Err(AsMapError),
            "a default that nothing uses"
        );
        let mut far = Bits::default();
        far.put("10").number(17, 5..=30, 4_000).ends(4).ends(5);
        assert_eq!(AsMap::new(far.bytes()), Err(AsMapError), "a jump past the end");
    }

    #[test]
    fn any_bytes_are_judged_without_harm() {
        let mut state = 1u64;
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..round % 40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if let Ok(map) = AsMap::new(bytes) {
                system(&map, "8.8.8.8");
                system(&map, "2a01::1");
            }
        }
    }
}
