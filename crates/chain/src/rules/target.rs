//! Targets: decoding the compact form with its sign and overflow rules, and the retarget arithmetic.

use bitcoin::{CompactTarget, Target, Work};

/// The target that `bits` stands for, or `None` when it is negative, zero, too large for 256 bits, or easier than
/// `limit`. A header with such bits has no valid proof of work.
pub fn derive_target(bits: CompactTarget, limit: Target) -> Option<Target> {
    let compact = bits.to_consensus();
    let size = compact >> 24;
    let word = compact & 0x007f_ffff;
    let mantissa = if size <= 3 { word >> (8 * (3 - size)) } else { word };
    if mantissa == 0 || compact & 0x0080_0000 != 0 {
        return None;
    }
    if size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32) {
        return None;
    }
    let target = Target::from_compact(bits);
    (target != Target::ZERO && target <= limit).then_some(target)
}

/// The work that a header with valid `bits` proves: 2^256 / (target + 1).
pub fn work_of(bits: CompactTarget) -> Work {
    let target = Target::from_compact(bits);
    // A target of zero proves nothing and never passes `derive_target`; it must not divide by zero either way.
    if target == Target::ZERO {
        Work::from_be_bytes([0; 32])
    } else {
        target.to_work()
    }
}

/// `old` scaled by the time a period took, in Core's order: multiply, divide, cap at the limit, round to compact.
///
/// `actual_timespan` is clamped here to a quarter and to four times `target_timespan` (both in seconds).
pub fn retarget(old: CompactTarget, actual_timespan: i64, target_timespan: u32, limit: Target) -> CompactTarget {
    let timespan = actual_timespan.clamp(i64::from(target_timespan / 4), i64::from(target_timespan) * 4);
    let timespan = u32::try_from(timespan).unwrap_or(u32::MAX);
    let scaled = divide(
        multiply(Target::from_compact(old).to_le_bytes(), timespan),
        target_timespan,
    );
    Target::from_le_bytes(scaled).min(limit).to_compact_lossy()
}

/// Low 256 bits of `number * factor`, little-endian. No valid target is large enough to lose bits here.
fn multiply(number: [u8; 32], factor: u32) -> [u8; 32] {
    let mut carry = 0_u64;
    number.map(|byte| {
        let product = u64::from(byte) * u64::from(factor) + carry;
        carry = product >> 8;
        (product & 0xff) as u8
    })
}

/// `number / divisor`, little-endian; `divisor` is never zero.
fn divide(number: [u8; 32], divisor: u32) -> [u8; 32] {
    let mut quotient = [0; 32];
    let mut rest = 0_u64;
    for (byte, out) in number.iter().zip(quotient.iter_mut()).rev() {
        rest = (rest << 8) | u64::from(*byte);
        // rest < divisor * 256 here, so the quotient digit fits a byte.
        *out = (rest / u64::from(divisor)) as u8;
        rest %= u64::from(divisor);
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN_LIMIT: Target = Target::MAX_ATTAINABLE_MAINNET;
    const TWO_WEEKS: u32 = 14 * 24 * 3600;

    fn bits(value: u32) -> CompactTarget {
        CompactTarget::from_consensus(value)
    }

    #[test]
    fn compact_targets_out_of_range_are_refused() {
        let limit = Target::from_le_bytes([0xff; 32]);
        assert!(derive_target(bits(0x1d00_ffff), MAIN_LIMIT).is_some());
        for bad in [
            0,           // zero
            0x0100_0000, // zero mantissa
            0x0180_0001, // negative
            0x1d80_ffff, // negative
            0x0100_1234, // shifted to zero
            0x2301_0000, // 35 bytes
            0x2200_0100, // overflows with two significant bytes
            0x2101_0000, // overflows with three significant bytes
            0x2201_0056, // would wrap to a small number
            0xff12_3456,
        ] {
            assert_eq!(derive_target(bits(bad), limit), None, "{bad:08x}");
        }
        assert!(derive_target(bits(0x2200_00ff), limit).is_some());
        assert!(
            derive_target(bits(0x1d01_0000), MAIN_LIMIT).is_none(),
            "easier than the limit"
        );
        assert!(derive_target(bits(0x0112_3456), limit).is_some());
    }

    /// The vectors of Core's pow_tests: real mainnet retargets and both clamps.
    #[test]
    fn retargets_of_the_main_chain() {
        let cases = [
            (1_261_130_161_i64, 1_262_152_739_i64, 0x1d00_ffff, 0x1d00_d86a), // block 32255
            (1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),         // capped at the limit
            (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),         // quarter
            (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),         // four times
        ];
        for (first, last, old, new) in cases {
            assert_eq!(retarget(bits(old), last - first, TWO_WEEKS, MAIN_LIMIT), bits(new));
        }
    }

    #[test]
    fn a_clock_running_backwards_counts_as_a_quarter() {
        let quarter = retarget(bits(0x1c05_a3f4), i64::from(TWO_WEEKS / 4), TWO_WEEKS, MAIN_LIMIT);
        assert_eq!(retarget(bits(0x1c05_a3f4), -5, TWO_WEEKS, MAIN_LIMIT), quarter);
    }

    #[test]
    fn work_of_the_genesis_target() {
        assert_eq!(
            format!("{:x}", work_of(bits(0x1d00_ffff))).trim_start_matches('0'),
            "100010001"
        );
    }
}
