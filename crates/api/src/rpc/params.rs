//! Arguments: from names to positions, from JSON to Rust, with Core's texts when they do not fit.

use bitcoin::hashes::Hash;
use serde_json::{Map, Value};

use super::error::{INVALID_PARAMETER, MISC_ERROR, RpcError, TYPE_ERROR};
use super::help;
use super::method::{Call, Kind, Method, Need};
use super::protocol::Params;
use super::table;

/// Puts the arguments of a call into position and checks their number and types.
pub(crate) fn arrange(method: &'static Method, params: Params) -> Result<Vec<Value>, RpcError> {
    let args = match params {
        Params::Positional(args) => args,
        Params::Named(named) => by_position(method, named)?,
    };
    let required = method
        .args
        .iter()
        .rposition(|arg| arg.need == Need::Required)
        .map_or(0, |last| last + 1);
    if args.len() < required || args.len() > method.args.len() {
        return Err(RpcError::new(MISC_ERROR, help::of(method)));
    }
    check_types(method, &args)?;
    Ok(args)
}

/// Named arguments by position. `args` holds leading positional ones; holes are null, but none are added at the end.
fn by_position(method: &Method, mut named: Map<String, Value>) -> Result<Vec<Value>, RpcError> {
    let invalid = |text: String| Err(RpcError::new(INVALID_PARAMETER, text));
    let mut placed: Vec<Value> = Vec::new();
    let mut first: Option<(usize, &'static str)> = None;
    for (position, arg) in method.args.iter().enumerate() {
        let value = arg.names.split('|').find_map(|name| named.remove(name));
        let Some(value) = with_options(arg.kind, value, &mut named)? else {
            continue;
        };
        first.get_or_insert((position, arg.names));
        placed.resize(position, Value::Null);
        placed.push(value);
    }
    if let Some(Value::Array(leading)) = named.remove("args") {
        if let Some((position, names)) = first
            && position < leading.len()
        {
            return invalid(format!(
                "Parameter {names} specified twice both as positional and named argument"
            ));
        }
        let rest = placed.split_off(leading.len().min(placed.len()));
        placed = leading;
        placed.extend(rest);
    }
    match named.keys().next() {
        Some(unknown) => invalid(format!("Unknown named parameter {unknown}")),
        None => Ok(placed),
    }
}

/// The options that were given as named arguments, put into their object.
fn with_options(kind: Kind, value: Option<Value>, named: &mut Map<String, Value>) -> Result<Option<Value>, RpcError> {
    let Kind::Options(names) = kind else { return Ok(value) };
    let mut given: Map<String, Value> = Map::new();
    for name in names {
        given.extend(named.remove(*name).map(|value| ((*name).to_owned(), value)));
    }
    match value {
        None if given.is_empty() => Ok(None),
        None => Ok(Some(Value::Object(given))),
        Some(Value::Object(mut options)) => match given.keys().find(|name| options.contains_key(*name)) {
            Some(name) => Err(RpcError::new(
                INVALID_PARAMETER,
                format!("Parameter {name} specified multiple times"),
            )),
            None => {
                options.extend(given);
                Ok(Some(Value::Object(options)))
            }
        },
        other => Ok(other),
    }
}

fn check_types(method: &Method, args: &[Value]) -> Result<(), RpcError> {
    let mut wrong = Map::new();
    for (position, arg) in method.args.iter().enumerate() {
        let value = args.get(position).unwrap_or(&Value::Null);
        if value.is_null() && arg.need != Need::Required {
            continue;
        }
        let expected = match arg.kind {
            Kind::Str | Kind::Hex => "string",
            Kind::Num => "number",
            Kind::Bool => "bool",
            Kind::List => "array",
            Kind::Object => "object",
            Kind::Options(_) => "object",
            Kind::Amount | Kind::NumOrBool | Kind::Any => continue,
        };
        if type_name(value) != expected {
            wrong.insert(
                format!("Position {} ({})", position + 1, arg.names),
                mismatch(value, expected).into(),
            );
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = wrong
        .iter()
        .map(|(key, text)| format!("    {}: {text}", Value::from(key.as_str())))
        .collect();
    Err(RpcError::new(
        TYPE_ERROR,
        format!("Wrong type passed:\n{{\n{}\n}}", list.join(",\n")),
    ))
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is said of a value with the wrong JSON type.
pub(crate) fn mismatch(value: &Value, expected: &str) -> String {
    format!(
        "JSON value of type {} is not of expected type {expected}",
        type_name(value)
    )
}

pub(crate) fn wrong_type(value: &Value, expected: &str) -> RpcError {
    RpcError::new(TYPE_ERROR, mismatch(value, expected))
}

/// How an argument is written on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As it is.
    Bare,
    /// As JSON.
    Json,
    /// As JSON where it is some, else as it is.
    Either,
}

/// How the argument of a method at a position, or of a name, is written; [`Written::Either`] when it is not known.
pub fn written(method: &str, position: Option<usize>, name: Option<&str>) -> Written {
    // It takes what echojson takes; this is all in which they differ.
    if method == "echo" {
        return Written::Bare;
    }
    let args = table::find(method).map(|method| method.args).unwrap_or_default();
    let arg = match (position, name) {
        (Some(position), _) => args.get(position),
        (None, Some(name)) => args.iter().find(|arg| arg.names.split('|').any(|known| known == name)),
        (None, None) => None,
    };
    match arg.map(|arg| arg.kind) {
        Some(Kind::Str | Kind::Hex) => Written::Bare,
        Some(Kind::Num | Kind::Bool | Kind::List | Kind::Object | Kind::Options(_)) => Written::Json,
        Some(Kind::Amount | Kind::NumOrBool | Kind::Any) | None => Written::Either,
    }
}

impl Call {
    /// The argument at `position`, null when it was left out.
    pub(crate) fn arg(&self, position: usize) -> &Value {
        self.args.get(position).unwrap_or(&Value::Null)
    }

    /// Whether the argument was given.
    pub(crate) fn given(&self, position: usize) -> bool {
        !self.arg(position).is_null()
    }

    /// A string.
    pub(crate) fn str(&self, position: usize) -> Result<&str, RpcError> {
        text(self.arg(position))
    }

    /// A string, where given.
    pub(crate) fn opt_str(&self, position: usize) -> Result<Option<&str>, RpcError> {
        self.given(position).then(|| self.str(position)).transpose()
    }

    /// A whole number that fits.
    pub(crate) fn int<T: std::str::FromStr>(&self, position: usize) -> Result<T, RpcError> {
        int(self.arg(position))
    }

    /// A whole number that fits, or `default`.
    pub(crate) fn int_or<T: std::str::FromStr>(&self, position: usize, default: T) -> Result<T, RpcError> {
        if self.given(position) {
            self.int(position)
        } else {
            Ok(default)
        }
    }

    /// True or false, or `default`.
    pub(crate) fn bool_or(&self, position: usize, default: bool) -> Result<bool, RpcError> {
        match self.arg(position) {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(*value),
            other => Err(wrong_type(other, "bool")),
        }
    }

    /// How much to tell: a number, or true for 1 and false for 0.
    pub(crate) fn verbosity(&self, position: usize, default: i32) -> Result<i32, RpcError> {
        match self.arg(position) {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(i32::from(*value)),
            other => int(other),
        }
    }

    /// 32 bytes in the reversed hex that people write hashes in. `name` is how the error calls it.
    pub(crate) fn hash<H: Hash<Bytes = [u8; 32]>>(&self, position: usize, name: &str) -> Result<H, RpcError> {
        parse_hash(self.str(position)?, name)
    }

    /// A list.
    pub(crate) fn list(&self, position: usize) -> Result<&[Value], RpcError> {
        let value = self.arg(position);
        let list = value.as_array().ok_or_else(|| wrong_type(value, "array"))?;
        Ok(list)
    }

    /// An amount of bitcoins as satoshi.
    pub(crate) fn amount(&self, position: usize) -> Result<u64, RpcError> {
        amount(self.arg(position))
    }
}

/// A string.
pub(crate) fn text(value: &Value) -> Result<&str, RpcError> {
    value.as_str().ok_or_else(|| wrong_type(value, "string"))
}

/// 32 bytes in the reversed hex that people write hashes in. `name` is how the error calls it.
pub(crate) fn parse_hash<H: Hash<Bytes = [u8; 32]>>(text: &str, name: &str) -> Result<H, RpcError> {
    let mut bytes = [0u8; 32];
    if hex::decode_to_slice(text, &mut bytes).is_ok() {
        bytes.reverse();
        return Ok(H::from_byte_array(bytes));
    }
    let message = if text.len() == 64 {
        format!("{name} must be hexadecimal string (not '{text}')")
    } else {
        format!("{name} must be of length 64 (not {}, for '{text}')", text.len())
    };
    Err(RpcError::new(INVALID_PARAMETER, message))
}

/// A whole number that fits.
pub(crate) fn int<T: std::str::FromStr>(value: &Value) -> Result<T, RpcError> {
    let Value::Number(number) = value else {
        return Err(wrong_type(value, "number"));
    };
    number
        .to_string()
        .parse()
        .map_err(|_| RpcError::new(MISC_ERROR, "JSON integer out of range"))
}

/// All the bitcoins there can be, in satoshi.
pub(crate) const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// An amount of bitcoins as satoshi.
pub(crate) fn amount(value: &Value) -> Result<u64, RpcError> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(RpcError::new(TYPE_ERROR, "Amount is not a number or string")),
    };
    let satoshi = fixed_point(&text, 8).ok_or_else(|| RpcError::new(TYPE_ERROR, "Invalid amount"))?;
    u64::try_from(satoshi)
        .ok()
        .filter(|satoshi| *satoshi <= MAX_MONEY)
        .ok_or_else(|| RpcError::new(TYPE_ERROR, "Amount out of range"))
}

/// A JSON number, times ten to the power of `decimals`, if that is whole and below 10^18.
fn fixed_point(text: &str, decimals: i64) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, exponent) = match text.find(['e', 'E']) {
        Some(at) => {
            let exponent = text.get(at + 1..)?;
            let bare = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (
                text.get(..at)?,
                exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>().ok()?,
            )
        }
        None => (text, 0),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    let mantissa = format!("{whole}{fraction}");
    let significant = mantissa.trim_end_matches('0');
    let dropped = i64::try_from(mantissa.len() - significant.len()).ok()?;
    let shift = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(dropped)?
        .checked_add(decimals)?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    if !(0..18).contains(&shift) || significant.len() > 18 {
        return None;
    }
    let value = significant
        .parse::<i64>()
        .ok()?
        .checked_mul(10i64.checked_pow(u32::try_from(shift).ok()?)?)?;
    (value < 1_000_000_000_000_000_000).then_some(if negative { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rpc::method::{Arg, Run};

    static METHOD: Method = Method {
        name: "test",
        group: "test",
        about: "Tests.",
        args: &[
            Arg::required("blockhash", Kind::Hex, ""),
            Arg::default("verbosity|verbose", Kind::NumOrBool, "1", ""),
            Arg::optional("n", Kind::Num, ""),
        ],
        result: "",
        run: Run::Blocking(|call| Ok(Value::Array(call.args.clone()))),
    };

    fn named(value: Value) -> Result<Vec<Value>, RpcError> {
        let Value::Object(map) = value else { panic!("an object") };
        arrange(&METHOD, Params::Named(map))
    }

    #[test]
    fn names_become_positions() {
        assert_eq!(named(json!({"blockhash": "00"})).unwrap(), [json!("00")]);
        assert_eq!(
            named(json!({"n": 4, "blockhash": "00"})).unwrap(),
            [json!("00"), Value::Null, json!(4)]
        );
        assert_eq!(
            named(json!({"verbose": true, "blockhash": "00"})).unwrap(),
            [json!("00"), json!(true)]
        );
        assert_eq!(
            named(json!({"args": ["00"], "n": 4})).unwrap(),
            [json!("00"), Value::Null, json!(4)]
        );
        assert_eq!(
            named(json!({"args": ["00", 2], "n": 4})).unwrap(),
            [json!("00"), json!(2), json!(4)]
        );
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let message = |value| named(value).unwrap_err();
        let twice = message(json!({"args": ["00"], "blockhash": "01"}));
        assert_eq!(
            (twice.code, twice.message.as_str()),
            (
                -8,
                "Parameter blockhash specified twice both as positional and named argument"
            )
        );
        let unknown = message(json!({"blockhash": "00", "hash": 1}));
        assert_eq!(
            (unknown.code, unknown.message.as_str()),
            (-8, "Unknown named parameter hash")
        );
        let missing = message(json!({}));
        assert_eq!(missing.code, -1);
        assert!(
            missing.message.starts_with("test \"blockhash\" ( verbosity n )"),
            "{}",
            missing.message
        );
        let kind = message(json!({"blockhash": 5, "n": "x"}));
        assert_eq!(kind.code, -3);
        assert_eq!(
            kind.message,
            "Wrong type passed:\n{\n    \"Position 1 (blockhash)\": \"JSON value of type number is not of expected type \
             string\",\n    \"Position 3 (n)\": \"JSON value of type string is not of expected type number\"\n}"
        );
        let many = arrange(
            &METHOD,
            Params::Positional(vec![json!("00"), json!(1), json!(1), json!(1)]),
        )
        .unwrap_err();
        assert_eq!(many.code, -1);
    }

    #[test]
    fn whole_numbers_are_whole() {
        let number = |text: &str| int::<i32>(&serde_json::from_str(text).unwrap());
        assert_eq!(number("-7"), Ok(-7));
        for bad in ["1.0", "1e2", "2147483648", "-2147483649"] {
            assert_eq!(number(bad).unwrap_err().message, "JSON integer out of range", "{bad}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        let good = [
            ("0", 0),
            ("1", 100_000_000),
            ("0.1", 10_000_000),
            ("0.00000001", 1),
            ("1e-8", 1),
            ("1.000000000", 100_000_000),
            ("21000000", 2_100_000_000_000_000),
            ("0.10e1", 100_000_000),
            ("0e50", 0),
            ("12.5E+1", 12_500_000_000),
        ];
        for (text, satoshi) in good {
            assert_eq!(amount(&json!(text)), Ok(satoshi), "{text}");
        }
        for bad in [
            "",
            "-",
            "01",
            "1.",
            ".1",
            "1e",
            "1e+",
            "0.000000001",
            "1e-9",
            "1x",
            "1e99999999999999999999",
            "0x1",
        ] {
            assert_eq!(amount(&json!(bad)).unwrap_err().message, "Invalid amount", "{bad}");
        }
        for bad in ["-1", "21000000.00000001"] {
            assert_eq!(amount(&json!(bad)).unwrap_err().message, "Amount out of range", "{bad}");
        }
    }
}
