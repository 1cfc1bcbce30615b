//! `feature` (BIP 434): what a peer can do beside the protocol's version, told between `version` and `verack`.

use super::payload::{Malformed, Reader, put_compact};

/// From this version on peers understand `feature`.
pub(crate) const FEATURE_VERSION: u32 = 70_017;
/// Bytes of a feature's name.
const ID: std::ops::RangeInclusive<usize> = 4..=80;
/// Most bytes of what goes with it.
const MAX_DATA: usize = 512;

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name: 4 to 80 bytes, printable by custom.
    pub id: Vec<u8>,
    /// What goes with it, at most 512 bytes.
    pub data: Vec<u8>,
}

impl Feature {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_compact(out, self.id.len() as u64);
        out.extend_from_slice(&self.id);
        put_compact(out, self.data.len() as u64);
        out.extend_from_slice(&self.data);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = reader.var_bytes(*ID.end(), "feature id")?;
        if !ID.contains(&id.len()) {
            return Err(Malformed("feature id"));
        }
        let data = reader.var_bytes(MAX_DATA, "feature data")?;
        // Nothing may follow, unlike in other messages.
        match reader.is_empty() {
            true => Ok(Self {
                id: id.to_vec(),
                data: data.to_vec(),
            }),
            false => Err(Malformed("feature size")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_features_within_the_bounds_are_taken() {
        let read = |id: usize, data: usize, after: usize| {
            let feature = Feature {
                id: vec![b'x'; id],
                data: vec![1; data],
            };
            let mut bytes = Vec::new();
            feature.encode(&mut bytes);
            bytes.resize(bytes.len() + after, 0);
            Feature::decode(&mut Reader::new(&bytes)).map(|read| read == feature)
        };
        assert_eq!(read(4, 0, 0), Ok(true));
        assert_eq!(read(80, 512, 0), Ok(true));
        assert_eq!(read(3, 0, 0), Err(Malformed("feature id")));
        assert_eq!(read(81, 0, 0), Err(Malformed("feature id")));
        assert_eq!(read(4, 513, 0), Err(Malformed("feature data")));
        assert_eq!(read(4, 0, 1), Err(Malformed("feature size")));
        assert_eq!(
            Feature::decode(&mut Reader::new(b"\x04abcd")),
            Err(Malformed("end of payload"))
        );
    }
}
