//! The notation for scripts in Core's test data: numbers, raw bytes after `0x`, text in quotes, names of operations.

/// Names that differ from a plain list, and the operations from 0x4c on in order.
#[rustfmt::skip]
const OPS: &[(u8, &str)] = &[
    (0x50, "RESERVED"), (0x61, "NOP"), (0x62, "VER"), (0x63, "IF"), (0x64, "NOTIF"), (0x65, "VERIF"),
    (0x66, "VERNOTIF"), (0x67, "ELSE"), (0x68, "ENDIF"), (0x69, "VERIFY"), (0x6a, "RETURN"), (0x6b, "TOALTSTACK"),
    (0x6c, "FROMALTSTACK"), (0x6d, "2DROP"), (0x6e, "2DUP"), (0x6f, "3DUP"), (0x70, "2OVER"), (0x71, "2ROT"),
    (0x72, "2SWAP"), (0x73, "IFDUP"), (0x74, "DEPTH"), (0x75, "DROP"), (0x76, "DUP"), (0x77, "NIP"), (0x78, "OVER"),
    (0x79, "PICK"), (0x7a, "ROLL"), (0x7b, "ROT"), (0x7c, "SWAP"), (0x7d, "TUCK"), (0x7e, "CAT"), (0x7f, "SUBSTR"),
    (0x80, "LEFT"), (0x81, "RIGHT"), (0x82, "SIZE"), (0x83, "INVERT"), (0x84, "AND"), (0x85, "OR"), (0x86, "XOR"),
    (0x87, "EQUAL"), (0x88, "EQUALVERIFY"), (0x89, "RESERVED1"), (0x8a, "RESERVED2"), (0x8b, "1ADD"), (0x8c, "1SUB"),
    (0x8d, "2MUL"), (0x8e, "2DIV"), (0x8f, "NEGATE"), (0x90, "ABS"), (0x91, "NOT"), (0x92, "0NOTEQUAL"), (0x93, "ADD"),
    (0x94, "SUB"), (0x95, "MUL"), (0x96, "DIV"), (0x97, "MOD"), (0x98, "LSHIFT"), (0x99, "RSHIFT"), (0x9a, "BOOLAND"),
    (0x9b, "BOOLOR"), (0x9c, "NUMEQUAL"), (0x9d, "NUMEQUALVERIFY"), (0x9e, "NUMNOTEQUAL"), (0x9f, "LESSTHAN"),
    (0xa0, "GREATERTHAN"), (0xa1, "LESSTHANOREQUAL"), (0xa2, "GREATERTHANOREQUAL"), (0xa3, "MIN"), (0xa4, "MAX"),
    (0xa5, "WITHIN"), (0xa6, "RIPEMD160"), (0xa7, "SHA1"), (0xa8, "SHA256"), (0xa9, "HASH160"), (0xaa, "HASH256"),
    (0xab, "CODESEPARATOR"), (0xac, "CHECKSIG"), (0xad, "CHECKSIGVERIFY"), (0xae, "CHECKMULTISIG"),
    (0xaf, "CHECKMULTISIGVERIFY"), (0xb0, "NOP1"), (0xb1, "CHECKLOCKTIMEVERIFY"), (0xb1, "NOP2"),
    (0xb2, "CHECKSEQUENCEVERIFY"), (0xb2, "NOP3"), (0xb3, "NOP4"), (0xb4, "NOP5"), (0xb5, "NOP6"), (0xb6, "NOP7"),
    (0xb7, "NOP8"), (0xb8, "NOP9"), (0xb9, "NOP10"), (0xba, "CHECKSIGADD"),
];

/// The bytes of a script in that notation; `None` for a word that is not part of it.
pub(crate) fn parse(text: &str) -> Option<Vec<u8>> {
    let mut script = Vec::new();
    for word in text.split_whitespace() {
        if let Ok(number) = word.parse::<i64>() {
            push_number(&mut script, number);
        } else if let Some(raw) = word.strip_prefix("0x") {
            script.extend(hex::decode(raw).ok()?);
        } else if let Some(quoted) = word.strip_prefix('\'') {
            push(&mut script, quoted.strip_suffix('\'')?.as_bytes());
        } else {
            let name = word.strip_prefix("OP_").unwrap_or(word);
            script.push(OPS.iter().find(|(_, op)| *op == name)?.0);
        }
    }
    Some(script)
}

fn push_number(script: &mut Vec<u8>, number: i64) {
    match number {
        0 => script.push(0),
        -1 => script.push(0x4f),
        1..=16 => script.push(0x50 + number as u8),
        _ => {
            let mut bytes = Vec::new();
            let mut rest = number.unsigned_abs();
            while rest > 0 {
                bytes.push((rest & 0xff) as u8);
                rest >>= 8;
            }
            if bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
                bytes.push(0);
            }
            if number < 0
                && let Some(top) = bytes.last_mut()
            {
                *top |= 0x80;
            }
            push(script, &bytes);
        }
    }
}

fn push(script: &mut Vec<u8>, data: &[u8]) {
    match data.len() {
        length @ 0..=0x4b => script.push(length as u8),
        length @ 0x4c..=0xff => script.extend([0x4c, length as u8]),
        length => {
            script.push(0x4d);
            script.extend((length as u16).to_le_bytes());
        }
    }
    script.extend(data);
}

/// The script without an operation, wherever it stands between pushes; what cannot be read is left as it is.
pub(crate) fn without(script: &[u8], op: u8) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut rest = script;
    while let Some(&code) = rest.first() {
        let le = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let length = match code {
            0x01..=0x4b => Some(1 + usize::from(code)),
            0x4c..=0x4e => {
                let width = 1 << (code - 0x4c);
                rest.get(1..=width).map(|bytes| 1 + width + le(bytes))
            }
            _ => Some(1),
        };
        let Some((one, after)) = length.and_then(|length| rest.split_at_checked(length)) else {
            kept.extend(rest);
            break;
        };
        if code != op {
            kept.extend(one);
        }
        rest = after;
    }
    kept
}
