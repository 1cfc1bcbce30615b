//! The five networks and what sets their consensus apart.
//!
//! The values are Bitcoin Core's (`kernel/chainparams.cpp`, version 31): heights of buried deployments (BIP 34, 65,
//! 66, 68/112/113, 141/143/147), proof-of-work limits and retargeting, the two blocks whose scripts break later
//! rules, the signet challenge (BIP 325), and the pinned assume-valid block and minimum chain work.

use std::fmt;
use std::str::FromStr;

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, BlockHash, ScriptBuf, Target, Work};
use serde::{Deserialize, Serialize};

use crate::script;
use crate::snapshot::AssumeUtxo;

/// A network that the chain can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The network on which people pay.
    Mainnet,
    /// The public test network before BIP 94.
    Testnet3,
    /// The public test network of BIP 94.
    Testnet4,
    /// The signed test network of BIP 325, with the default challenge.
    Signet,
    /// A private network on which anybody finds blocks at once.
    Regtest,
}

impl Network {
    /// Every network.
    pub const ALL: [Self; 5] = [
        Self::Mainnet,
        Self::Testnet3,
        Self::Testnet4,
        Self::Signet,
        Self::Regtest,
    ];

    /// The name in commands and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Testnet3 => "testnet3",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The name that Bitcoin Core's RPC uses (`chain` of `getblockchaininfo`).
    pub const fn chain_name(self) -> &'static str {
        match self {
            Self::Mainnet => "main",
            Self::Testnet3 => "test",
            other => other.name(),
        }
    }

    /// The same network in the `bitcoin` crate's terms, for addresses.
    pub const fn to_bitcoin(self) -> bitcoin::Network {
        match self {
            Self::Mainnet => bitcoin::Network::Bitcoin,
            Self::Testnet3 => bitcoin::Network::Testnet,
            Self::Testnet4 => bitcoin::Network::Testnet4,
            Self::Signet => bitcoin::Network::Signet,
            Self::Regtest => bitcoin::Network::Regtest,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of mainnet, testnet3, testnet4, signet, regtest")]
pub struct UnknownNetwork(pub String);

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == text || network.chain_name() == text)
            .ok_or_else(|| UnknownNetwork(text.to_owned()))
    }
}

/// What sets a network's consensus apart.
#[derive(Clone, Debug)]
pub struct Params {
    /// Which network this is.
    pub network: Network,
    /// The first block; its coinbase output can never be spent.
    pub genesis: Block,
    /// The first block's hash.
    pub genesis_hash: BlockHash,
    /// The first four bytes of every message, in wire order.
    pub magic: [u8; 4],
    /// The TCP port that peers listen on.
    pub default_port: u16,
    /// The easiest target a block may have.
    pub pow_limit: Target,
    /// Seconds that one retarget period should last.
    pub target_timespan: u32,
    /// Seconds that should pass between blocks.
    pub target_spacing: u32,
    /// The difficulty never changes.
    pub no_retargeting: bool,
    /// A block 20 minutes after its parent may have the easiest target.
    pub allow_min_difficulty_blocks: bool,
    /// The time-warp and difficulty rules of BIP 94 hold.
    pub enforce_bip94: bool,
    /// Blocks after which the subsidy halves.
    pub subsidy_halving_interval: u32,
    /// From this height on a coinbase begins with its height (BIP 34).
    pub bip34_height: u32,
    /// The block at [`Params::bip34_height`] of the chain in which duplicate coinbases were ruled out by it.
    pub bip34_hash: Option<BlockHash>,
    /// From this height on `OP_CHECKLOCKTIMEVERIFY` holds (BIP 65).
    pub bip65_height: u32,
    /// From this height on signatures are strict DER (BIP 66).
    pub bip66_height: u32,
    /// From this height on relative lock times and median time past hold (BIP 68, 112, 113).
    pub csv_height: u32,
    /// From this height on segregated witness holds (BIP 141, 143, 147).
    pub segwit_height: u32,
    /// Blocks that were mined under older script rules than their height would ask for, with the rules that hold in
    /// each whatever its height; see [`crate::script::block_flags`].
    pub script_flag_exceptions: Vec<(BlockHash, script::Flags)>,
    /// The script that a signet block's solution must satisfy (BIP 325).
    pub signet_challenge: Option<ScriptBuf>,
    /// Blocks are pruned only above this height.
    pub prune_after_height: u32,
    /// A chain of headers with less work than this is not the real one.
    pub minimum_chain_work: Work,
    /// Scripts of this block and its ancestors were checked by many people before this version was released.
    pub assume_valid: Option<BlockHash>,
    /// Snapshots of the unspent outputs whose hash this version knows, by height.
    pub assume_utxo: Vec<AssumeUtxo>,
}

/// Blocks in one retarget period of every network that retargets.
const TWO_WEEKS: u32 = 14 * 24 * 60 * 60;

impl Params {
    /// The parameters of `network`.
    pub fn new(network: Network) -> Self {
        match network {
            Network::Mainnet => Self {
                prune_after_height: 100_000,
                bip34_height: 227_931,
                bip34_hash: Some(hash("000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8")),
                bip65_height: 388_381,
                bip66_height: 363_725,
                csv_height: 419_328,
                segwit_height: 481_824,
                script_flag_exceptions: vec![
                    // The last block in which a spend that BIP 16 refuses was mined.
                    (
                        hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"),
                        script::VERIFY_NONE,
                    ),
                    // A spend that BIP 341 refuses, from before its activation.
                    (
                        hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
                        script::VERIFY_P2SH | script::VERIFY_WITNESS,
                    ),
                ],
                minimum_chain_work: work("0000000000000000000000000000000000000001128750f82f4c366153a3a030"),
                // Height 938,343.
                assume_valid: Some(hash("00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac")),
                assume_utxo: vec![
                    known_coins(
                        840_000,
                        "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5",
                        "a2a5521b1b5ab65f67818e5e8eccabb7171a517f9e2382208f77687310768f96",
                        991_032_194,
                    ),
                    known_coins(
                        880_000,
                        "000000000000000000010b17283c3c400507969a9c2afd1dcf2082ec5cca2880",
                        "dbd190983eaf433ef7c15f78a278ae42c00ef52e0fd2a54953782175fbadcea9",
                        1_145_604_538,
                    ),
                    known_coins(
                        910_000,
                        "0000000000000000000108970acb9522ffd516eae17acddcb1bd16469194a821",
                        "4daf8a17b4902498c5787966a2b51c613acdab5df5db73f196fa59a4da2f1568",
                        1_226_586_151,
                    ),
                    known_coins(
                        935_000,
                        "0000000000000000000147034958af1652b2b91bba607beacc5e72a56f0fb5ee",
                        "e4b90ef9eae834f56c4b64d2d50143cee10ad87994c614d7d04125e2a6025050",
                        1_305_397_408,
                    ),
                ],
                ..Self::modern(network, [0xf9, 0xbe, 0xb4, 0xd9], 8333)
            },
            Network::Testnet3 => Self {
                allow_min_difficulty_blocks: true,
                bip34_height: 21_111,
                bip34_hash: Some(hash("0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8")),
                bip65_height: 581_885,
                bip66_height: 330_776,
                csv_height: 770_112,
                segwit_height: 834_624,
                script_flag_exceptions: vec![
                    // A spend that BIP 16 refuses.
                    (
                        hash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
                        script::VERIFY_NONE,
                    ),
                ],
                minimum_chain_work: work("0000000000000000000000000000000000000000000017dde1c649f3708d14b6"),
                // Height 4,842,348.
                assume_valid: Some(hash("000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4")),
                ..Self::modern(network, [0x0b, 0x11, 0x09, 0x07], 18333)
            },
            Network::Testnet4 => Self {
                allow_min_difficulty_blocks: true,
                enforce_bip94: true,
                minimum_chain_work: work("0000000000000000000000000000000000000000000009a0fe15d0177d086304"),
                // Height 123,613.
                assume_valid: Some(hash("0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a")),
                assume_utxo: vec![
                    known_coins(
                        90_000,
                        "0000000002ebe8bcda020e0dd6ccfbdfac531d2f6a81457191b99fc2df2dbe3b",
                        "784fb5e98241de66fdd429f4392155c9e7db5c017148e66e8fdbc95746f8b9b5",
                        11_347_043,
                    ),
                    known_coins(
                        120_000,
                        "000000000bd2317e51b3c5794981c35ba894ce27d3e772d5c39ecd9cbce01dc8",
                        "10b05d05ad468d0971162e1b222a4aa66caca89da2bb2a93f8f37fb29c4794b0",
                        14_141_057,
                    ),
                ],
                ..Self::modern(network, [0x1c, 0x16, 0x3f, 0x28], 48333)
            },
            Network::Signet => Self {
                pow_limit: target("00000377ae000000000000000000000000000000000000000000000000000000"),
                signet_challenge: Some(default_signet_challenge()),
                minimum_chain_work: work("00000000000000000000000000000000000000000000000000000b463ea0a4b8"),
                // Height 293,175.
                assume_valid: Some(hash("00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329")),
                assume_utxo: vec![
                    known_coins(
                        160_000,
                        "0000003ca3c99aff040f2563c2ad8f8ec88bd0fd6b8f0895cfaf1ef90353a62c",
                        "fe0a44309b74d6b5883d246cb419c6221bcccf0b308c9b59b7d70783dbdf928a",
                        2_289_496,
                    ),
                    known_coins(
                        290_000,
                        "0000000577f2741bb30cd9d39d6d71b023afbeb9764f6260786a97969d5c9ac0",
                        "97267e000b4b876800167e71b9123f1529d13b14308abec2888bbd2160d14545",
                        28_547_497,
                    ),
                ],
                ..Self::modern(network, [0x0a, 0x03, 0xcf, 0x40], 38333)
            },
            Network::Regtest => Self {
                pow_limit: target("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
                target_timespan: 24 * 60 * 60,
                no_retargeting: true,
                allow_min_difficulty_blocks: true,
                subsidy_halving_interval: 150,
                segwit_height: 0,
                assume_utxo: vec![
                    known_coins(
                        110,
                        "135eec25a6fb277884e5824e7aa7d052c4868161c99a5122170b5266f86c273d",
                        "86e9a1205b418b16dde3a18a78c730e30137e28466bda5dbf6b33ab8fc05447c",
                        111,
                    ),
                    known_coins(
                        200,
                        "385901ccbd69dff6bbd00065d01fb8a9e464dede7cfe0372443884f9b1dcf6b9",
                        "17dcc016d188d16068907cdeb38b75691a118d43053b8cd6a25969419381d13a",
                        201,
                    ),
                    known_coins(
                        299,
                        "0c552ced4721c249a389eb9b08cb8da261cd46f0e7b5f9d064d48f3113406853",
                        "106b2c56233e378a824cf0d5ff2be42ed32c72f1605c9be288d00942908a40ac",
                        334,
                    ),
                ],
                ..Self::modern(network, [0xfa, 0xbf, 0xb5, 0xda], 18444)
            },
        }
    }

    /// A signet of one's own, whose blocks satisfy `challenge` (BIP 325). Its genesis block is the public one's.
    pub fn signet(challenge: ScriptBuf) -> Self {
        let [a, b, c, d, ..] = sha256d::Hash::hash(&serialize(&challenge)).to_byte_array();
        Self {
            magic: [a, b, c, d],
            signet_challenge: Some(challenge),
            minimum_chain_work: Work::from_be_bytes([0; 32]),
            assume_valid: None,
            assume_utxo: Vec::new(),
            ..Self::new(Network::Signet)
        }
    }

    /// What a network has that was born with every deployment active.
    fn modern(network: Network, magic: [u8; 4], default_port: u16) -> Self {
        let genesis = bitcoin::constants::genesis_block(network.to_bitcoin());
        Self {
            network,
            genesis_hash: genesis.block_hash(),
            genesis,
            magic,
            default_port,
            pow_limit: target("00000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            target_timespan: TWO_WEEKS,
            target_spacing: 10 * 60,
            no_retargeting: false,
            allow_min_difficulty_blocks: false,
            enforce_bip94: false,
            subsidy_halving_interval: 210_000,
            bip34_height: 1,
            bip34_hash: None,
            bip65_height: 1,
            bip66_height: 1,
            csv_height: 1,
            segwit_height: 1,
            script_flag_exceptions: Vec::new(),
            signet_challenge: None,
            prune_after_height: 1000,
            minimum_chain_work: work("0000000000000000000000000000000000000000000000000000000000000000"),
            assume_valid: None,
            assume_utxo: Vec::new(),
        }
    }

    /// Blocks between two retargets.
    pub const fn retarget_interval(&self) -> u32 {
        self.target_timespan / self.target_spacing
    }
}

/// The 1-of-2 multisignature script of the default signet.
fn default_signet_challenge() -> ScriptBuf {
    ScriptBuf::from_hex(
        "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
         210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae",
    )
    .expect("a pinned constant that the tests read")
}

fn hash(text: &str) -> BlockHash {
    text.parse().expect("a pinned constant that the tests read")
}

/// A snapshot that Core's version 31 knows, too.
fn known_coins(height: u32, block: &str, coins_hash: &str, chain_tx_count: u64) -> AssumeUtxo {
    AssumeUtxo {
        height,
        block: hash(block),
        coins_hash: coins_hash.parse().expect("a pinned constant that the tests read"),
        chain_tx_count,
    }
}

fn work(text: &str) -> Work {
    Work::from_unprefixed_hex(text).expect("a pinned constant that the tests read")
}

fn target(text: &str) -> Target {
    Target::from_unprefixed_hex(text).expect("a pinned constant that the tests read")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn genesis_blocks_are_the_networks_own() {
        let known = [
            (
                Network::Mainnet,
                "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            ),
            (
                Network::Testnet3,
                "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
            ),
            (
                Network::Testnet4,
                "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            ),
            (
                Network::Signet,
                "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
            ),
            (
                Network::Regtest,
                "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
            ),
        ];
        for (network, want) in known {
            let params = Params::new(network);
            assert_eq!(params.genesis_hash, hash(want));
            assert!(params.genesis.check_merkle_root());
            assert!(params.genesis.header.target() <= params.pow_limit);
            assert!(params.genesis.header.target().is_met_by(params.genesis_hash));
        }
    }

    #[test]
    fn the_signet_magic_is_the_hash_of_its_challenge() {
        let public = Params::new(Network::Signet);
        let own = Params::signet(public.signet_challenge.clone().unwrap());
        assert_eq!(own.magic, public.magic);
        assert_ne!(Params::signet(ScriptBuf::from_bytes(vec![0x51])).magic, public.magic);
    }

    #[test]
    fn names_go_both_ways() {
        for network in Network::ALL {
            assert_eq!(network.name().parse(), Ok(network));
            assert_eq!(network.chain_name().parse(), Ok(network));
        }
        assert_eq!("test".parse(), Ok(Network::Testnet3));
        assert!("testnet".parse::<Network>().is_err());
    }
}
