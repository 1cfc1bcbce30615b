//! Rules of regtest that differ for a test: when a deployment holds, and whether BIP 94 does.

use std::str::FromStr;

use crate::{Network, Params};

/// One of them, written `bip94` or `NAME@HEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestRule {
    /// The rules of BIP 94 hold.
    Bip94,
    /// A deployment holds from this height on.
    Active(Deployment, u32),
}

/// A deployment that has a height of its own, under Core's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// BIP 34.
    Bip34,
    /// BIP 66.
    Dersig,
    /// BIP 65.
    Cltv,
    /// BIP 68, 112 and 113.
    Csv,
    /// BIP 141, 143 and 147.
    Segwit,
}

/// Why a text is no [`TestRule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither bip94 nor NAME@HEIGHT, with a name of bip34, dersig, cltv, csv, segwit")]
pub struct UnknownTestRule(String);

impl FromStr for TestRule {
    type Err = UnknownTestRule;

    fn from_str(text: &str) -> Result<Self, UnknownTestRule> {
        if text == "bip94" {
            return Ok(Self::Bip94);
        }
        let unknown = || UnknownTestRule(text.to_owned());
        let (name, height) = text.split_once('@').ok_or_else(unknown)?;
        let deployment = match name {
            "bip34" => Deployment::Bip34,
            "dersig" => Deployment::Dersig,
            "cltv" => Deployment::Cltv,
            "csv" => Deployment::Csv,
            "segwit" => Deployment::Segwit,
            _ => return Err(unknown()),
        };
        match height.parse() {
            Ok(height @ 0..0x7fff_ffff) => Ok(Self::Active(deployment, height)),
            _ => Err(unknown()),
        }
    }
}

impl Params {
    /// Makes the rule one of the network's; `false`, and nothing happens, where it is not regtest.
    pub fn set_test_rule(&mut self, rule: TestRule) -> bool {
        if self.network != Network::Regtest {
            return false;
        }
        let (deployment, height) = match rule {
            TestRule::Bip94 => {
                self.enforce_bip94 = true;
                return true;
            }
            TestRule::Active(deployment, height) => (deployment, height),
        };
        *match deployment {
            Deployment::Bip34 => &mut self.bip34_height,
            Deployment::Dersig => &mut self.bip66_height,
            Deployment::Cltv => &mut self.bip65_height,
            Deployment::Csv => &mut self.csv_height,
            Deployment::Segwit => &mut self.segwit_height,
        } = height;
        true
    }
}
