//! What was learned as bytes: a mark, heights, the time of writing, all sums in little endian, and their SHA-256.

use bitcoin::hashes::{Hash, sha256};

use super::Estimator;

const MARK: &[u8; 8] = b"DUNFEES1";
/// Seconds after which what was learned says nothing of today.
const MAX_AGE: u64 = 60 * 60 * 60;

/// Why a file of estimates is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateFileError {
    /// Its bytes are not those that were written.
    #[error("it is damaged")]
    Damaged,
    /// It was written more than 60 hours ago.
    #[error("it is too old")]
    TooOld,
}

impl Estimator {
    /// What was learned, as of `now` in Unix seconds. What still waits counts as given up.
    pub fn encode(&self, now: u64) -> Vec<u8> {
        let mut closed = self.clone();
        for txid in self.tracked.keys() {
            closed.forget(txid, false);
        }
        let span = |(first, last): (u32, u32)| last.saturating_sub(first);
        let own = (self.first, if self.first == 0 { 0 } else { self.best });
        let watched = if span(own) > span(self.earlier) / 2 {
            own
        } else {
            self.earlier
        };
        let mut bytes = MARK.to_vec();
        bytes.extend(now.to_le_bytes());
        for height in [self.best, watched.0, watched.1] {
            bytes.extend(height.to_le_bytes());
        }
        for sum in closed.sums() {
            bytes.extend(sum.to_le_bytes());
        }
        let hash = sha256::Hash::hash(&bytes);
        bytes.extend(hash.as_byte_array());
        bytes
    }

    /// What an earlier run had learned.
    ///
    /// # Errors
    /// When the bytes are not those of [`Estimator::encode`], or too old at `now`, in Unix seconds.
    pub fn decode(bytes: &[u8], now: u64) -> Result<Self, EstimateFileError> {
        read(bytes, now).ok_or(EstimateFileError::Damaged)?
    }

    fn sums(&mut self) -> impl Iterator<Item = &mut f64> {
        self.horizons.iter_mut().flat_map(|horizon| {
            let rows = horizon.within.iter_mut().chain(&mut horizon.failed);
            rows.chain([&mut horizon.mined, &mut horizon.rates]).flatten()
        })
    }
}

fn read(bytes: &[u8], now: u64) -> Option<Result<Estimator, EstimateFileError>> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    if sha256::Hash::hash(body).as_byte_array() != hash {
        return None;
    }
    let (mark, rest) = body.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (best, rest) = rest.split_first_chunk::<4>()?;
    let (first, rest) = rest.split_first_chunk::<4>()?;
    let (last, mut rest) = rest.split_first_chunk::<4>()?;
    if mark != MARK {
        return None;
    }
    if now.saturating_sub(u64::from_le_bytes(*time)) > MAX_AGE {
        return Some(Err(EstimateFileError::TooOld));
    }
    let mut estimator = Estimator {
        best: u32::from_le_bytes(*best),
        earlier: (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
        ..Estimator::default()
    };
    for sum in estimator.sums() {
        let (value, more) = rest.split_first_chunk::<8>()?;
        let value = f64::from_le_bytes(*value);
        if !value.is_finite() || value < 0.0 {
            return None;
        }
        (*sum, rest) = (value, more);
    }
    rest.is_empty().then_some(Ok(estimator))
}
