//! Scripts for people: assembly, type, descriptor and address, as Core names them.

use bitcoin::{Address, Script, XOnlyPublicKey};
use dunlin_chain::Network;
use serde_json::{Map, Value};

/// The longest script that can ever be spent.
const MAX_SCRIPT_SIZE: usize = 10_000;
/// The longest item that a script may push.
const MAX_ELEMENT_SIZE: usize = 520;
/// The highest opcode with a meaning outside tapscript: `OP_NOP10`.
const MAX_OPCODE: u8 = 0xb9;

/// One step of a script.
pub(crate) struct Step<'a> {
    pub(crate) opcode: u8,
    /// What a push opcode pushes.
    pub(crate) data: &'a [u8],
}

/// Walks over a script; an `Err` says that a push runs beyond the end.
pub(crate) struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Steps<'a> {
    type Item = Result<Step<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&opcode, rest) = self.rest.split_first()?;
        self.rest = rest;
        let length_bytes = match opcode {
            0x4c => 1,
            0x4d => 2,
            0x4e => 4,
            _ => 0,
        };
        let length = match (opcode, self.rest.split_at_checked(length_bytes)) {
            (_, None) => None,
            (1..=0x4b, _) => Some(usize::from(opcode)),
            (0x4c..=0x4e, Some((length, rest))) => {
                self.rest = rest;
                Some(
                    length
                        .iter()
                        .rev()
                        .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte)),
                )
            }
            _ => Some(0),
        };
        let Some((data, rest)) = length.and_then(|length| self.rest.split_at_checked(length)) else {
            self.rest = &[];
            return Some(Err(()));
        };
        self.rest = rest;
        Some(Ok(Step { opcode, data }))
    }
}

pub(crate) fn steps(script: &[u8]) -> Steps<'_> {
    Steps { rest: script }
}

/// The script in words. With `decode_signatures`, what looks like an ECDSA signature shows its sighash type in
/// brackets, as in the assembly of a scriptSig.
pub(crate) fn asm(script: &Script, decode_signatures: bool) -> String {
    let decode_signatures = decode_signatures && !is_unspendable(script);
    let mut text = String::new();
    for step in steps(script.as_bytes()) {
        if !text.is_empty() {
            text.push(' ');
        }
        let Ok(step) = step else {
            text.push_str("[error]");
            return text;
        };
        if step.opcode > 0x4e {
            text.push_str(opcode_name(step.opcode));
        } else if step.data.len() <= 4 {
            text.push_str(&script_number(step.data).to_string());
        } else {
            match sighash_name(step.data).filter(|_| decode_signatures) {
                Some(name) => {
                    text.push_str(&hex::encode(
                        step.data.split_last().map_or(&[][..], |(_, signature)| signature),
                    ));
                    text.push_str(&format!("[{name}]"));
                }
                None => text.push_str(&hex::encode(step.data)),
            }
        }
    }
    text
}

/// Up to four bytes as the number that a script takes them for: little-endian, highest bit is the sign.
fn script_number(data: &[u8]) -> i64 {
    let magnitude = data.iter().rev().fold(0i64, |sum, byte| (sum << 8) | i64::from(*byte));
    match data.last() {
        Some(last) if last & 0x80 != 0 => -(magnitude & !(0x80i64 << (8 * (data.len() - 1)))),
        _ => magnitude,
    }
}

/// Whether an output can never be spent.
pub(crate) fn is_unspendable(script: &Script) -> bool {
    script.as_bytes().first() == Some(&0x6a) || script.len() > MAX_SCRIPT_SIZE
}

/// Whether the script is cut off nowhere and uses no unknown opcode.
pub(crate) fn has_valid_ops(script: &Script) -> bool {
    steps(script.as_bytes())
        .all(|step| step.is_ok_and(|step| step.opcode <= MAX_OPCODE && step.data.len() <= MAX_ELEMENT_SIZE))
}

/// The sighash type of a strictly encoded DER signature with its type byte (BIP 66).
pub(crate) fn sighash_name(bytes: &[u8]) -> Option<&'static str> {
    let (&kind, der) = bytes.split_last()?;
    if !is_strict_der(der) {
        return None;
    }
    sighash_type(kind)
}

/// The name of a sighash type.
pub(crate) fn sighash_type(kind: u8) -> Option<&'static str> {
    match kind {
        0x01 => Some("ALL"),
        0x02 => Some("NONE"),
        0x03 => Some("SINGLE"),
        0x81 => Some("ALL|ANYONECANPAY"),
        0x82 => Some("NONE|ANYONECANPAY"),
        0x83 => Some("SINGLE|ANYONECANPAY"),
        _ => None,
    }
}

/// BIP 66, without the sighash byte: two positive integers in their shortest form.
fn is_strict_der(der: &[u8]) -> bool {
    let integer = |bytes: &[u8]| -> Option<usize> {
        let (&tag, rest) = bytes.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let value = rest.get(..usize::from(length))?;
        let shortest = match value {
            [] => false,
            [0, next, ..] => next & 0x80 != 0,
            [first, ..] => first & 0x80 == 0,
        };
        (tag == 2 && shortest).then_some(2 + usize::from(length))
    };
    let Some((&[0x30, total], rest)) = der.split_first_chunk::<2>() else {
        return false;
    };
    if !(8..=72).contains(&der.len()) || usize::from(total) != rest.len() {
        return false;
    }
    let Some(tail) = integer(rest).and_then(|length| rest.get(length..)) else {
        return false;
    };
    integer(tail) == Some(tail.len())
}

/// What kind of output a script makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    NonStandard,
    PubKey(&'a [u8]),
    PubKeyHash,
    ScriptHash,
    Multisig(u8, Vec<&'a [u8]>),
    NullData,
    Anchor,
    WitnessV0KeyHash,
    WitnessV0ScriptHash,
    Taproot(&'a [u8]),
    WitnessUnknown,
}

/// What kind of output a script makes.
pub(crate) fn classify(script: &Script) -> Kind<'_> {
    let bytes = script.as_bytes();
    match bytes {
        [0xa9, 20, hash @ .., 0x87] if hash.len() == 20 => return Kind::ScriptHash,
        [version @ (0 | 0x51..=0x60), length, program @ ..]
            if usize::from(*length) == program.len() && (2..=40).contains(&program.len()) =>
        {
            return match (*version, program.len()) {
                (0, 20) => Kind::WitnessV0KeyHash,
                (0, 32) => Kind::WitnessV0ScriptHash,
                (0, _) => Kind::NonStandard,
                (0x51, 32) => Kind::Taproot(program),
                (0x51, 2) if program == [0x4e, 0x73] => Kind::Anchor,
                _ => Kind::WitnessUnknown,
            };
        }
        [0x6a, pushes @ ..] if steps(pushes).all(|step| step.is_ok_and(|step| step.opcode <= 0x60)) => {
            return Kind::NullData;
        }
        [65, key @ .., 0xac] if key.len() == 65 && key_length(key) == 65 => return Kind::PubKey(key),
        [33, key @ .., 0xac] if key.len() == 33 && key_length(key) == 33 => return Kind::PubKey(key),
        [0x76, 0xa9, 20, hash @ .., 0x88, 0xac] if hash.len() == 20 => return Kind::PubKeyHash,
        _ => {}
    }
    multisig(bytes).unwrap_or(Kind::NonStandard)
}

/// How long a public key with this first byte is; 0 for none.
fn key_length(key: &[u8]) -> usize {
    match key.first() {
        Some(2 | 3) => 33,
        Some(4 | 6 | 7) => 65,
        _ => 0,
    }
}

/// `m <key>... n OP_CHECKMULTISIG`, with up to 20 keys.
fn multisig(bytes: &[u8]) -> Option<Kind<'_>> {
    if bytes.last() != Some(&0xae) {
        return None;
    }
    let mut steps = steps(bytes);
    let required = small_number(&steps.next()?.ok()?).filter(|count| (1..=20).contains(count))?;
    let mut keys = Vec::new();
    let last = loop {
        let step = steps.next()?.ok()?;
        if step.data.is_empty() || step.data.len() != key_length(step.data) {
            break step;
        }
        keys.push(step.data);
    };
    let count = small_number(&last).filter(|count| (required..=20).contains(count))?;
    (usize::from(count) == keys.len() && steps.rest.len() == 1).then_some(Kind::Multisig(required, keys))
}

/// A small number, by opcode or by the shortest push.
fn small_number(step: &Step<'_>) -> Option<u8> {
    match (step.opcode, step.data) {
        (0x51..=0x60, _) => Some(step.opcode - 0x50),
        (1, [value]) if (17..=0x7f).contains(value) => Some(*value),
        _ => None,
    }
}

impl Kind<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::NonStandard => "nonstandard",
            Self::PubKey(_) => "pubkey",
            Self::PubKeyHash => "pubkeyhash",
            Self::ScriptHash => "scripthash",
            Self::Multisig(..) => "multisig",
            Self::NullData => "nulldata",
            Self::Anchor => "anchor",
            Self::WitnessV0KeyHash => "witness_v0_keyhash",
            Self::WitnessV0ScriptHash => "witness_v0_scripthash",
            Self::Taproot(_) => "witness_v1_taproot",
            Self::WitnessUnknown => "witness_unknown",
        }
    }

    fn has_address(&self) -> bool {
        !matches!(
            self,
            Self::NonStandard | Self::PubKey(_) | Self::Multisig(..) | Self::NullData
        )
    }
}

/// An output's script as JSON.
pub(crate) fn script_pub_key(script: &Script, network: Network) -> Value {
    let kind = classify(script);
    let address = address(script, &kind, network);
    let mut map = Map::new();
    map.insert("asm".into(), asm(script, false).into());
    map.insert("desc".into(), descriptor(script, &kind, address.as_deref()).into());
    map.insert("hex".into(), hex::encode(script.as_bytes()).into());
    if let Some(address) = address {
        map.insert("address".into(), address.into());
    }
    map.insert("type".into(), kind.name().into());
    Value::Object(map)
}

fn address(script: &Script, kind: &Kind<'_>, network: Network) -> Option<String> {
    let address = Address::from_script(script, network.to_bitcoin()).ok();
    address
        .filter(|_| kind.has_address())
        .map(|address| address.to_string())
}

fn descriptor(script: &Script, kind: &Kind<'_>, address: Option<&str>) -> String {
    let plain_key = |key: &&[u8]| matches!(key.first(), Some(2..=4));
    let body = match kind {
        Kind::PubKey(key) if plain_key(key) => format!("pk({})", hex::encode(key)),
        Kind::Multisig(required, keys) if keys.iter().all(plain_key) => {
            let keys: Vec<String> = keys.iter().map(hex::encode).collect();
            format!("multi({required},{})", keys.join(","))
        }
        Kind::Taproot(key) if XOnlyPublicKey::from_slice(key).is_ok() => format!("rawtr({})", hex::encode(key)),
        _ => match address {
            Some(address) => format!("addr({address})"),
            None => format!("raw({})", hex::encode(script.as_bytes())),
        },
    };
    with_checksum(&body)
}

/// A descriptor with its checksum (BIP 380).
pub(crate) fn with_checksum(body: &str) -> String {
    let checksum = descriptor_checksum(body);
    format!("{body}#{checksum}")
}

/// The output descriptor that can be told from the script alone, with its checksum (BIP 380).
pub(crate) fn descriptor_of(script: &Script, network: Network) -> String {
    let kind = classify(script);
    descriptor(script, &kind, address(script, &kind, network).as_deref())
}

/// The checksum of BIP 380: eight characters over the descriptor's own.
pub(crate) fn descriptor_checksum(text: &str) -> String {
    const INPUT: &[u8] =
        b"0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
    const OUTPUT: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u64; 5] = [
        0xf5_dee5_1989,
        0xa9_fdca_3312,
        0x1b_ab10_e32d,
        0x37_06b1_677a,
        0x64_4d62_6ffd,
    ];
    let step = |state: u64, symbol: u64| -> u64 {
        let top = state >> 35;
        let mut state = ((state & 0x7_ffff_ffff) << 5) ^ symbol;
        for (bit, constant) in GENERATOR.iter().enumerate() {
            if top >> bit & 1 == 1 {
                state ^= constant;
            }
        }
        state
    };
    let mut state = 1u64;
    let (mut class, mut count) = (0u64, 0);
    for byte in text.bytes() {
        let Some(position) = INPUT.iter().position(|candidate| *candidate == byte) else {
            return String::new();
        };
        let position = position as u64;
        state = step(state, position & 31);
        class = class * 3 + (position >> 5);
        count += 1;
        if count == 3 {
            state = step(state, class);
            (class, count) = (0, 0);
        }
    }
    if count > 0 {
        state = step(state, class);
    }
    for _ in 0..8 {
        state = step(state, 0);
    }
    state ^= 1;
    (0..8)
        .map(|index| char::from(OUTPUT[(state >> (5 * (7 - index)) & 31) as usize]))
        .collect()
}

/// The names of the opcodes from `OP_1NEGATE` on.
fn opcode_name(opcode: u8) -> &'static str {
    const FROM_61: [&str; 90] = [
        "OP_NOP",
        "OP_VER",
        "OP_IF",
        "OP_NOTIF",
        "OP_VERIF",
        "OP_VERNOTIF",
        "OP_ELSE",
        "OP_ENDIF",
        "OP_VERIFY",
        "OP_RETURN",
        "OP_TOALTSTACK",
        "OP_FROMALTSTACK",
        "OP_2DROP",
        "OP_2DUP",
        "OP_3DUP",
        "OP_2OVER",
        "OP_2ROT",
        "OP_2SWAP",
        "OP_IFDUP",
        "OP_DEPTH",
        "OP_DROP",
        "OP_DUP",
        "OP_NIP",
        "OP_OVER",
        "OP_PICK",
        "OP_ROLL",
        "OP_ROT",
        "OP_SWAP",
        "OP_TUCK",
        "OP_CAT",
        "OP_SUBSTR",
        "OP_LEFT",
        "OP_RIGHT",
        "OP_SIZE",
        "OP_INVERT",
        "OP_AND",
        "OP_OR",
        "OP_XOR",
        "OP_EQUAL",
        "OP_EQUALVERIFY",
        "OP_RESERVED1",
        "OP_RESERVED2",
        "OP_1ADD",
        "OP_1SUB",
        "OP_2MUL",
        "OP_2DIV",
        "OP_NEGATE",
        "OP_ABS",
        "OP_NOT",
        "OP_0NOTEQUAL",
        "OP_ADD",
        "OP_SUB",
        "OP_MUL",
        "OP_DIV",
        "OP_MOD",
        "OP_LSHIFT",
        "OP_RSHIFT",
        "OP_BOOLAND",
        "OP_BOOLOR",
        "OP_NUMEQUAL",
        "OP_NUMEQUALVERIFY",
        "OP_NUMNOTEQUAL",
        "OP_LESSTHAN",
        "OP_GREATERTHAN",
        "OP_LESSTHANOREQUAL",
        "OP_GREATERTHANOREQUAL",
        "OP_MIN",
        "OP_MAX",
        "OP_WITHIN",
        "OP_RIPEMD160",
        "OP_SHA1",
        "OP_SHA256",
        "OP_HASH160",
        "OP_HASH256",
        "OP_CODESEPARATOR",
        "OP_CHECKSIG",
        "OP_CHECKSIGVERIFY",
        "OP_CHECKMULTISIG",
        "OP_CHECKMULTISIGVERIFY",
        "OP_NOP1",
        "OP_CHECKLOCKTIMEVERIFY",
        "OP_CHECKSEQUENCEVERIFY",
        "OP_NOP4",
        "OP_NOP5",
        "OP_NOP6",
        "OP_NOP7",
        "OP_NOP8",
        "OP_NOP9",
        "OP_NOP10",
        "OP_CHECKSIGADD",
    ];
    const SMALL: [&str; 16] = [
        "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    match opcode {
        0x4f => "-1",
        0x50 => "OP_RESERVED",
        0x51..=0x60 => SMALL[usize::from(opcode - 0x51)],
        0xff => "OP_INVALIDOPCODE",
        _ => FROM_61
            .get(usize::from(opcode.wrapping_sub(0x61)))
            .copied()
            .unwrap_or("OP_UNKNOWN"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bitcoin::ScriptBuf;

    use super::*;

    fn described(hex: &str) -> (String, String, Option<String>, String) {
        let script = ScriptBuf::from_hex(hex).unwrap();
        let json = script_pub_key(&script, Network::Mainnet);
        let field = |name: &str| json[name].as_str().map(str::to_owned);
        (
            field("asm").unwrap(),
            field("desc").unwrap(),
            field("address"),
            field("type").unwrap(),
        )
    }

    #[test]
    fn outputs_read_as_in_core() {
        // The genesis block's output, with the answer that Bitcoin Core gives for it.
        let key = "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7\
                   ba0b8d578a4c702b6bf11d5f";
        let (asm, desc, address, kind) = described(&format!("41{key}ac"));
        assert_eq!(asm, format!("{key} OP_CHECKSIG"));
        assert_eq!(desc, format!("pk({key})#vlz6ztea"));
        assert_eq!((address, kind.as_str()), (None, "pubkey"));

        let (asm, desc, address, kind) = described("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac");
        assert_eq!(
            asm,
            "OP_DUP OP_HASH160 62e907b15cbf27d5425399ebf6f0fb50ebb88f18 OP_EQUALVERIFY OP_CHECKSIG"
        );
        assert!(desc.starts_with("addr(1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa)#"), "{desc}");
        assert_eq!(
            (address.as_deref(), kind.as_str()),
            (Some("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"), "pubkeyhash")
        );

        let (asm, _, address, kind) = described("51024e73");
        assert_eq!((asm.as_str(), kind.as_str()), ("1 29518", "anchor"));
        assert_eq!(address.as_deref(), Some("bc1pfeessrawgf"));

        let (asm, desc, address, kind) =
            described("6a24aa21a9ed000000000000000000000000000000000000000000000000000000000000beef");
        assert_eq!(
            asm,
            "OP_RETURN aa21a9ed000000000000000000000000000000000000000000000000000000000000beef"
        );
        assert!(desc.starts_with("raw(6a24aa21"), "{desc}");
        assert_eq!((address, kind.as_str()), (None, "nulldata"));

        let (asm, _, _, kind) = described("6a4c");
        assert_eq!((asm.as_str(), kind.as_str()), ("OP_RETURN [error]", "nonstandard"));
        let (asm, _, _, kind) = described("");
        assert_eq!((asm.as_str(), kind.as_str()), ("", "nonstandard"));
        let (asm, _, _, kind) = described("00024e73ba0181");
        assert_eq!(
            (asm.as_str(), kind.as_str()),
            ("0 29518 OP_CHECKSIGADD -1", "nonstandard")
        );
    }

    #[test]
    fn bare_multisig_and_taproot_have_their_descriptors() {
        let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let (asm, desc, address, kind) = described(&format!("5121{key}51ae"));
        assert_eq!(asm, format!("1 {key} 1 OP_CHECKMULTISIG"));
        assert!(desc.starts_with(&format!("multi(1,{key})#")), "{desc}");
        assert_eq!((address, kind.as_str()), (None, "multisig"));
        let (_, _, _, kind) = described(&format!("5221{key}51ae"));
        assert_eq!(kind, "nonstandard");
        let (_, desc, address, kind) = described(&format!("5120{}", &key[2..]));
        assert!(desc.starts_with(&format!("rawtr({})#", &key[2..])), "{desc}");
        assert_eq!(kind, "witness_v1_taproot");
        assert!(address.unwrap().starts_with("bc1p"));
    }

    #[test]
    fn the_checksum_is_that_of_bip_380() {
        assert_eq!(descriptor_checksum("raw(deadbeef)"), "89f8spxm");
        assert_eq!(descriptor_checksum("raw(Ü)"), "");
    }

    #[test]
    fn signatures_in_inputs_show_their_sighash() {
        let der = format!("3044{}{}{}{}", "0220", "11".repeat(32), "0220", "22".repeat(32));
        let push = |kind: &str| ScriptBuf::from_hex(&format!("47{der}{kind}")).unwrap();
        assert_eq!(asm(&push("01"), true), format!("{der}[ALL]"));
        assert_eq!(asm(&push("83"), true), format!("{der}[SINGLE|ANYONECANPAY]"));
        assert_eq!(asm(&push("04"), true), format!("{der}04"));
        assert_eq!(asm(&push("01"), false), format!("{der}01"));
        let negative = der.replacen("11", "91", 1);
        let script = ScriptBuf::from_hex(&format!("47{negative}01")).unwrap();
        assert_eq!(asm(&script, true), format!("{negative}01"));
    }
}
