//! Reading a script one operation at a time, exactly as far as Core's reader goes.

/// One step of a script.
pub(super) struct Op<'a> {
    /// The opcode.
    pub(super) code: u8,
    /// The bytes that it pushes; empty for everything that is not a direct or length-prefixed push.
    pub(super) push: &'a [u8],
}

/// Walks a script's bytes. Where a push runs past the end it yields `None` once and then ends.
pub(super) struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Ops<'a> {
    pub(super) fn new(script: &'a [u8]) -> Self {
        Self { rest: script }
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Option<Op<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&code, rest) = self.rest.split_first()?;
        let (length, rest) = match code {
            0x00..=0x4b => (Some(usize::from(code)), rest),
            0x4c => read_length::<1>(rest),
            0x4d => read_length::<2>(rest),
            0x4e => read_length::<4>(rest),
            _ => (Some(0), rest),
        };
        let step = length.and_then(|length| rest.split_at_checked(length));
        self.rest = step.map_or(&[], |(_, rest)| rest);
        Some(step.map(|(push, _)| Op { code, push }))
    }
}

/// Reads a little-endian push length of `N` bytes.
fn read_length<const N: usize>(rest: &[u8]) -> (Option<usize>, &[u8]) {
    match rest.split_first_chunk::<N>() {
        Some((bytes, rest)) => {
            let length = bytes
                .iter()
                .rev()
                .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
            (usize::try_from(length).ok(), rest)
        }
        None => (None, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &[u8]) -> Vec<Option<(u8, Vec<u8>)>> {
        Ops::new(script)
            .map(|op| op.map(|op| (op.code, op.push.to_vec())))
            .collect()
    }

    #[test]
    fn reads_every_kind_of_push() {
        assert_eq!(
            read(&[
                0x00, 0x02, 1, 2, 0x4c, 1, 9, 0x4d, 1, 0, 8, 0x4e, 1, 0, 0, 0, 7, 0x51, 0xac
            ]),
            [
                (0x00, vec![]),
                (0x02, vec![1, 2]),
                (0x4c, vec![9]),
                (0x4d, vec![8]),
                (0x4e, vec![7]),
                (0x51, vec![]),
                (0xac, vec![])
            ]
            .map(Some)
        );
    }

    #[test]
    fn a_push_past_the_end_ends_the_script() {
        for bad in [
            &[0x02, 1][..],
            &[0x4c],
            &[0x4c, 2, 0],
            &[0x4d, 1],
            &[0x4e, 1, 0, 0],
            &[0x4e, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(read(bad), [None]);
        }
    }
}
