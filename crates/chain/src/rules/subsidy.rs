//! The block subsidy and its halvings.

use bitcoin::Amount;

/// New coins that the block at `height` may create; halved every `halving_interval` blocks, zero after 64 halvings.
pub fn subsidy(height: u32, halving_interval: u32) -> Amount {
    let halvings = height.checked_div(halving_interval).unwrap_or(u32::MAX);
    if halvings >= 64 {
        return Amount::ZERO;
    }
    Amount::from_sat((50 * Amount::ONE_BTC.to_sat()) >> halvings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_exactly_at_the_edges() {
        let at = |height| subsidy(height, 210_000).to_sat();
        assert_eq!(at(0), 5_000_000_000);
        assert_eq!(at(209_999), 5_000_000_000);
        assert_eq!(at(210_000), 2_500_000_000);
        assert_eq!(at(419_999), 2_500_000_000);
        assert_eq!(at(420_000), 1_250_000_000);
        assert_eq!(at(840_000), 312_500_000);
        assert_eq!(at(32 * 210_000), 1);
        assert_eq!(at(33 * 210_000), 0);
        assert_eq!(at(64 * 210_000 - 1), 0);
        assert_eq!(at(64 * 210_000), 0);
        assert_eq!(at(u32::MAX), 0);
        assert_eq!(subsidy(149, 150).to_sat(), 5_000_000_000);
        assert_eq!(subsidy(150, 150).to_sat(), 2_500_000_000);
    }

    #[test]
    fn the_sum_of_all_subsidies_is_the_known_supply() {
        let total: u64 = (0..64)
            .map(|era| subsidy(era * 210_000, 210_000).to_sat() * 210_000)
            .sum();
        assert_eq!(total, 2_099_999_997_690_000);
    }
}
