//! Fee rates: the whole-number rate that people set, and the exact ratio that chunks are ordered by.

use std::cmp::Ordering;
use std::fmt;

use bitcoin::Amount;

/// Satoshi per 1000 virtual bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeRate(u64);

impl FeeRate {
    /// From satoshi per 1000 virtual bytes.
    pub const fn from_sat_per_kvb(rate: u64) -> Self {
        Self(rate)
    }

    /// Satoshi per 1000 virtual bytes.
    pub const fn sat_per_kvb(self) -> u64 {
        self.0
    }

    /// The fee for `vsize` virtual bytes, rounded up.
    pub fn fee(self, vsize: u64) -> Amount {
        let fee = (u128::from(self.0) * u128::from(vsize)).div_ceil(1000);
        Amount::from_sat(u64::try_from(fee).unwrap_or(u64::MAX))
    }

    /// The rate that `fee` for `vsize` virtual bytes makes, rounded down.
    pub fn of(fee: Amount, vsize: u64) -> Self {
        let rate = u128::from(fee.to_sat()) * 1000 / u128::from(vsize.max(1));
        Self(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// The sum of two rates.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for FeeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} sat/vB", self.0 / 1000, self.0 % 1000)
    }
}

/// A fee and the weight that it is paid for. Compared by [`Ratio::cmp_rate`], without rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ratio {
    /// Satoshi; below zero where an operator's priority takes more than was paid.
    pub(crate) fee: i64,
    /// Weight units, raised where signature operations are dense.
    pub(crate) weight: u64,
}

impl Ratio {
    pub(crate) fn cmp_rate(&self, other: &Self) -> Ordering {
        let left = i128::from(self.fee) * i128::from(other.weight);
        let right = i128::from(other.fee) * i128::from(self.weight);
        left.cmp(&right)
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            fee: self.fee.saturating_add(other.fee),
            weight: self.weight.saturating_add(other.weight),
        }
    }

    /// The rate in whole satoshi per 1000 virtual bytes; 0 for a fee below zero.
    pub(crate) fn to_rate(self) -> FeeRate {
        FeeRate::of(
            Amount::from_sat(self.fee.max(0).unsigned_abs()),
            self.weight.div_ceil(4),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_round_up_and_rates_down() {
        let rate = FeeRate::from_sat_per_kvb(100);
        assert_eq!(rate.fee(0), Amount::ZERO);
        assert_eq!(rate.fee(1), Amount::from_sat(1));
        assert_eq!(rate.fee(10), Amount::from_sat(1));
        assert_eq!(rate.fee(141), Amount::from_sat(15));
        assert_eq!(FeeRate::of(Amount::from_sat(15), 141), FeeRate::from_sat_per_kvb(106));
        assert_eq!(
            FeeRate::from_sat_per_kvb(u64::MAX).fee(u64::MAX),
            Amount::from_sat(u64::MAX)
        );
        assert_eq!(FeeRate::from_sat_per_kvb(1234).to_string(), "1.234 sat/vB");
    }

    #[test]
    fn ratios_compare_exactly() {
        let ratio = |fee, weight| Ratio { fee, weight };
        assert_eq!(ratio(1, 3).cmp_rate(&ratio(2, 6)), Ordering::Equal);
        assert_eq!(ratio(333_333, 1_000_000).cmp_rate(&ratio(1, 3)), Ordering::Less);
        assert_eq!(ratio(i64::MAX, 1).cmp_rate(&ratio(i64::MAX, 2)), Ordering::Greater);
        assert_eq!(ratio(-1, 3).cmp_rate(&ratio(0, 1)), Ordering::Less);
    }
}
