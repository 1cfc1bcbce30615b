//! Bytes as Core's streams read and write them: compact sizes in their shortest form, and bytes behind their length.

use super::Malformed;

/// The longest size that is believed, as in Core: 32 MiB.
const MAX_SIZE: u64 = 0x0200_0000;

/// Reads from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let split = self.0.split_at_checked(count);
        let (head, rest) = split.ok_or_else(|| Malformed::new("SpanReader::read(): end of data"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        // `take` gives just as many.
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// A compact size.
    pub(super) fn size(&mut self) -> Result<u64, Malformed> {
        let (size, least) = match self.byte()? {
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            0xfe => (u64::from(u32::from_le_bytes(self.array()?)), 0x1_0000),
            0xff => (u64::from_le_bytes(self.array()?), 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if size < least {
            return Err(Malformed::new("non-canonical ReadCompactSize()"));
        }
        if size > MAX_SIZE {
            return Err(Malformed::new("ReadCompactSize(): size too large"));
        }
        Ok(size)
    }

    /// Bytes behind their length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let size = self.size()?;
        // No size is larger than 32 MiB.
        self.take(usize::try_from(size).unwrap_or(usize::MAX))
    }
}

/// Appends a compact size.
pub(super) fn put_size(into: &mut Vec<u8>, size: usize) {
    match size {
        0..=0xfc => into.push(size as u8),
        0xfd..=0xffff => {
            into.push(0xfd);
            into.extend((size as u16).to_le_bytes());
        }
        _ => {
            into.push(0xfe);
            // Nothing here is longer than the input, which is bounded by 32 MiB for each piece.
            into.extend((size as u32).to_le_bytes());
        }
    }
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_size(into, bytes.len());
    into.extend(bytes);
}
