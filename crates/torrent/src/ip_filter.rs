//! Lists of addresses that nothing is to be exchanged with, as other programs keep them.
//!
//! Three kinds of lines are understood, mixed as they may be: `first - last , level , text` (eMule's `ipfilter.dat`; a
//! level above 127 blocks nothing), `text:first-last` (PeerGuardian's P2P) and `address/bits` or a single address. Lines
//! that begin with `#` or `//`, and empty ones, are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most ranges of one list.
const MAX_RANGES: usize = 4_000_000;
/// Lists of eMule let higher levels through.
const MAX_LEVEL: u32 = 127;

/// The ranges of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpFilter {
    /// First and last address of each range, sorted, apart from each other. IPv4 in its IPv6 form.
    ranges: Vec<(u128, u128)>,
}

/// A line that says nothing that we understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no range of addresses: {text}")]
pub struct IpFilterError {
    /// Counted from 1.
    pub line: usize,
    /// Its first characters.
    pub text: String,
}

impl IpFilter {
    /// Reads a list.
    ///
    /// # Errors
    /// Names the first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, IpFilterError> {
        let mut ranges = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            let range = read_line(line).filter(|_| ranges.len() < MAX_RANGES);
            let range = range.ok_or_else(|| IpFilterError {
                line: at + 1,
                text: line.chars().filter(|c| !c.is_control()).take(60).collect(),
            })?;
            ranges.extend(range);
        }
        ranges.sort_unstable();
        let mut apart: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match apart.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => apart.push((first, last)),
            }
        }
        Ok(Self { ranges: apart })
    }

    /// Whether nothing is to be exchanged with this address.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        let ip = number(ip);
        let after = self.ranges.partition_point(|(first, _)| *first <= ip);
        after > 0 && self.ranges.get(after - 1).is_some_and(|(_, last)| ip <= *last)
    }

    /// How many ranges there are that do not touch.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The range of a line, if it blocks one; `None` when the line makes no sense.
fn read_line(line: &str) -> Option<Option<(u128, u128)>> {
    if let Some((ip, bits)) = line.split_once('/')
        && let (Some(ip), Ok(bits)) = (address(ip), bits.trim().parse::<u32>())
    {
        let host = match ip {
            IpAddr::V4(_) => 32u32.checked_sub(bits)?,
            IpAddr::V6(_) => 128u32.checked_sub(bits)?,
        };
        let mask = if host == 128 { u128::MAX } else { (1u128 << host) - 1 };
        let first = number(ip) & !mask;
        return Some(Some((first, first | mask)));
    }
    if let Some(ip) = address(line) {
        return Some(Some((number(ip), number(ip))));
    }
    let mut parts = line.split(',');
    let range = parts.next()?;
    let level = parts.next().map_or(Ok(0), |level| level.trim().parse::<u32>());
    // A description may hold commas and colons; the range is behind the last colon then.
    let (range, level) = match (both(range), level) {
        (Some(range), Ok(level)) => (range, level),
        _ => (both(line.rsplit_once(':')?.1)?, 0),
    };
    Some((level <= MAX_LEVEL).then_some(range))
}

fn both(text: &str) -> Option<(u128, u128)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (address(first)?, address(last)?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then(|| (number(first), number(last)))
}

/// An address; these lists pad the numbers of IPv4 with zeros.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(ip.into());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts
            .next()
            .filter(|part| part.len() <= 3 && part.bytes().all(|c| c.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_lists_are_read() {
        let text = "# comment\n\n\
                    001.002.004.000 - 001.002.004.255 , 000 , Some, company\n\
                    1.2.5.0 - 1.2.5.255 , 200 , let through\n\
                    Bad: people:9.8.7.6-9.8.7.9\n\
                    10.0.0.0/8\n2001:db8::/32\n192.0.2.1\n1.2.4.128-1.2.6.0\n";
        let filter = IpFilter::parse(text).unwrap();
        let blocks = |ip: &str| filter.blocks(ip.parse().unwrap());
        for ip in [
            "1.2.4.0",
            "1.2.6.0",
            "9.8.7.6",
            "9.8.7.9",
            "10.255.255.255",
            "2001:db8:1::1",
            "192.0.2.1",
            "::ffff:192.0.2.1",
        ] {
            assert!(blocks(ip), "{ip}");
        }
        for ip in [
            "1.2.3.255",
            "1.2.6.1",
            "9.8.7.5",
            "9.8.7.10",
            "11.0.0.0",
            "2001:db9::",
            "192.0.2.0",
            "::",
        ] {
            assert!(!blocks(ip), "{ip}");
        }
        assert_eq!(filter.len(), 5, "ranges that touch are one");
        assert!(IpFilter::parse("").unwrap().is_empty());
        for bad in [
            "hello",
            "1.2.3.4-1.2.3",
            "5.5.5.5 - 4.4.4.4 , 0 , x",
            "1.2.3.4/33",
            "1.2.3.999",
            "1.1.1.1-::1",
        ] {
            let error = IpFilter::parse(&format!("1.1.1.1\n{bad}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{bad}");
        }
    }
}
