//! Reading and writing payload fields: integers, compact sizes, strings. Nothing here trusts a claimed length.

use bytes::Bytes;

/// A payload that does not follow its message's format; the words say which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The largest compact size that a peer may send, `MAX_SIZE` of Bitcoin Core.
const MAX_COMPACT_SIZE: u64 = 0x0200_0000;

/// Takes fields off the front of a payload.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed("end of payload"))?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed("end of payload"))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    /// A compact size in its shortest form and within Core's bound.
    pub(crate) fn compact_size(&mut self) -> Result<u64, Malformed> {
        let value = self.compact_u64()?;
        if value > MAX_COMPACT_SIZE {
            return Err(Malformed("compact size too large"));
        }
        Ok(value)
    }

    /// A compact size used as a number, such as the services of an `addrv2` entry: the whole range is legal.
    pub(crate) fn compact_u64(&mut self) -> Result<u64, Malformed> {
        let (value, least) = match self.u8()? {
            0xfd => (u64::from(self.array().map(u16::from_le_bytes)?), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least {
            return Err(Malformed("non-canonical compact size"));
        }
        Ok(value)
    }

    /// The count of a list whose entries take at least `entry_len` bytes each: refused when it is beyond `max`
    /// or when the payload cannot hold that many.
    pub(crate) fn count(&mut self, max: usize, entry_len: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = usize::try_from(self.compact_size()?).map_err(|_| Malformed(what))?;
        if count > max {
            return Err(Malformed(what));
        }
        if count.saturating_mul(entry_len) > self.rest.len() {
            return Err(Malformed("end of payload"));
        }
        Ok(count)
    }

    /// A byte string with its length in front.
    pub(crate) fn var_bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.compact_size()?).map_err(|_| Malformed(what))?;
        if len > max {
            return Err(Malformed(what));
        }
        self.take(len)
    }
}

/// Appends a compact size in its shortest form.
pub(crate) fn put_compact(out: &mut Vec<u8>, value: u64) {
    match value {
        // The ranges make the conversions exact.
        0..=0xfc => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// A part of a received buffer that may be kept: small parts are copied so that they do not pin the whole buffer.
pub(crate) fn keep(bytes: Bytes) -> Bytes {
    const SMALL: usize = 16 * 1024;
    if bytes.len() < SMALL {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn compact_sizes_round_trip_and_reject_long_forms() {
        for value in [
            0,
            1,
            0xfc,
            0xfd,
            0xffff,
            0x1_0000,
            0x0200_0000,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_compact(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.compact_u64().unwrap(), value);
            assert!(reader.is_empty());
            assert_eq!(Reader::new(&bytes).compact_size().is_ok(), value <= MAX_COMPACT_SIZE);
        }
        for long in [
            &[0xfd, 0xfc, 0][..],
            &[0xfe, 0xff, 0xff, 0, 0],
            &[0xff, 1, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(
                Reader::new(long).compact_u64(),
                Err(Malformed("non-canonical compact size"))
            );
        }
    }

    #[test]
    fn a_count_never_exceeds_what_the_payload_can_hold() {
        let mut bytes = Vec::new();
        put_compact(&mut bytes, 1000);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(
            Reader::new(&bytes).count(2000, 36, "inv"),
            Err(Malformed("end of payload"))
        );
        assert_eq!(Reader::new(&bytes).count(999, 0, "inv"), Err(Malformed("inv")));
        assert_eq!(Reader::new(&bytes).count(1000, 0, "inv"), Ok(1000));
    }
}
