//! Numbers as Core prints them: amounts with eight places, floats with sixteen digits.

use serde_json::{Number, Value};

/// Satoshi as an exact decimal number of bitcoins.
pub(crate) fn btc(satoshi: i64) -> Value {
    let magnitude = satoshi.unsigned_abs();
    let sign = if satoshi < 0 { "-" } else { "" };
    number(&format!(
        "{sign}{}.{:08}",
        magnitude / 100_000_000,
        magnitude % 100_000_000
    ))
}

/// Satoshi that cannot be negative.
pub(crate) fn btc_u(satoshi: u64) -> Value {
    btc(i64::try_from(satoshi).unwrap_or(i64::MAX))
}

/// A float with sixteen significant digits, trailing zeros dropped (printf's `%.16g`).
pub(crate) fn float(value: f64) -> Value {
    number(&general(value))
}

fn number(text: &str) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

fn general(value: f64) -> String {
    const DIGITS: i32 = 16;
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let scientific = format!("{value:.15e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| -> String {
        if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            digits.to_owned()
        }
    };
    if (-4..DIGITS).contains(&exponent) {
        let places = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
        return trim(&format!("{value:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

/// How much harder than the easiest target `bits` (compact form) is.
pub(crate) fn difficulty(bits: u32) -> f64 {
    let mut shift = bits >> 24;
    let mut difficulty = f64::from(0x0000_ffff_u32) / f64::from(bits & 0x00ff_ffff);
    while shift < 29 {
        difficulty *= 256.0;
        shift += 1;
    }
    while shift > 29 {
        difficulty /= 256.0;
        shift -= 1;
    }
    difficulty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_core_prints_them() {
        assert_eq!(btc(5_000_000_000).to_string(), "50.00000000");
        assert_eq!(btc(-1).to_string(), "-0.00000001");
        assert_eq!(btc(0).to_string(), "0.00000000");
        // From Bitcoin Core: the difficulty of regtest, of mainnet's genesis and of block 800,000.
        assert_eq!(float(difficulty(0x207f_ffff)).to_string(), "4.656542373906925e-10");
        assert_eq!(float(difficulty(0x1d00_ffff)).to_string(), "1");
        assert_eq!(float(difficulty(0x1705_3894)).to_string(), "53911173001054.59");
        assert_eq!(general(0.1), "0.1");
        assert_eq!(general(0.00012), "0.00012");
        assert_eq!(general(0.000012), "1.2e-05");
        assert_eq!(general(1e16), "1e+16");
        assert_eq!(general(123.0), "123");
        assert_eq!(general(100.0), "100");
    }
}
