//! Core's settings: the command line, then the network's section of `bitcoin.conf`, then what stands above all sections.
//!
//! `-name`, `-name=value`, `-noname`, each with one dash or two. On the command line the last word on an option counts,
//! in the file the first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use dunlin_chain::Network;

use super::options::{self, Effect, Program};

/// The settings file in a data directory.
const CONF_FILE: &str = "bitcoin.conf";
/// A settings file beyond this size is no settings file.
const MAX_CONF: u64 = 1 << 20;
/// The options that choose a network, besides `-chain`.
const NETWORK_SWITCHES: [&str; 4] = ["regtest", "signet", "testnet", "testnet4"];

/// What one mention of an option says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// `-noname`.
    Off,
    /// The value; empty for a bare `-name`.
    Text(String),
}

/// All that one source says, by option.
type Source = BTreeMap<String, Vec<Said>>;

/// All settings of one run.
#[derive(Debug)]
pub(super) struct Settings {
    /// The network chosen.
    pub(super) network: Network,
    /// Where everything is kept.
    pub(super) data_dir: PathBuf,
    /// What a person should know.
    pub(super) warnings: Vec<String>,
    /// What stands behind the options.
    pub(super) words: Vec<String>,
    command: Source,
    section: Source,
    common: Source,
}

impl Settings {
    /// Reads the arguments of the program and its settings file.
    ///
    /// # Errors
    /// When an option is unknown, cannot be carried out, or contradicts another, or when the file cannot be read.
    pub(super) fn read(program: Program, args: &[String]) -> anyhow::Result<Self> {
        let mut settings = Self {
            network: Network::Mainnet,
            data_dir: default_data_dir(),
            warnings: Vec::new(),
            words: Vec::new(),
            command: Source::new(),
            section: Source::new(),
            common: Source::new(),
        };
        settings.take_arguments(program, args)?;
        if settings.asks_for_help() {
            return Ok(settings);
        }
        settings.take_data_dir()?;
        let mut sections = BTreeMap::new();
        if let Some((file, text)) = settings.conf()? {
            sections = settings
                .sections(program, &text)
                .with_context(|| format!("Error reading configuration file: {}", file.display()))?;
            settings.common = sections.remove("").unwrap_or_default();
            settings.take_data_dir()?;
        }
        settings.network = settings.chosen_network()?;
        settings.section = sections.remove(section_of(settings.network)).unwrap_or_default();
        settings.judge(program)?;
        Ok(settings)
    }

    fn take_arguments(&mut self, program: Program, args: &[String]) -> anyhow::Result<()> {
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            // A lone dash is no option; and what stands behind bitcoin-cli's method belongs to it.
            let Some(option) = arg.strip_prefix('-').filter(|option| !option.is_empty()) else {
                ensure!(
                    program == Program::Cli,
                    "Command line contains unexpected token '{arg}', see -help for a list of options."
                );
                self.words.push(arg.clone());
                self.words.extend(rest.cloned());
                break;
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            let Some((name, said)) = interpret(program, key, value) else {
                bail!("Error parsing command line arguments: Invalid parameter {arg}");
            };
            ensure!(
                name != "includeconf",
                "Error parsing command line arguments: -includeconf cannot be used from commandline; {arg}"
            );
            self.command.entry(name).or_default().push(said);
        }
        Ok(())
    }

    /// Whether `-help` or `-version` stands on the command line: then nothing else matters.
    pub(super) fn asks_for_help(&self) -> bool {
        ["?", "h", "help", "version"].iter().any(|name| self.is_on(name))
    }

    fn take_data_dir(&mut self) -> anyhow::Result<()> {
        if let Some(dir) = self.text("datadir").filter(|dir| !dir.is_empty()) {
            self.data_dir = std::path::absolute(&dir)?;
            ensure!(
                self.data_dir.is_dir(),
                "Specified data directory \"{dir}\" does not exist."
            );
        }
        Ok(())
    }

    fn conf(&self) -> anyhow::Result<Option<(PathBuf, String)>> {
        let named = self.text("conf");
        if self
            .command
            .get("conf")
            .is_some_and(|said| said.last() == Some(&Said::Off))
        {
            return Ok(None);
        }
        let file = self.data_dir.join(named.as_deref().unwrap_or(CONF_FILE));
        if named.is_none() && !file.exists() {
            return Ok(None);
        }
        let unreadable = || {
            format!(
                "Error reading configuration file: specified config file \"{}\" could not be opened.",
                file.display()
            )
        };
        ensure!(
            std::fs::metadata(&file).with_context(unreadable)?.len() <= MAX_CONF,
            unreadable()
        );
        let text = std::fs::read_to_string(&file).with_context(unreadable)?;
        Ok(Some((file, text)))
    }

    /// What a settings file says, by section; what stands above them all under the empty name.
    fn sections(&mut self, program: Program, text: &str) -> anyhow::Result<BTreeMap<String, Source>> {
        let mut sections: BTreeMap<String, Source> = BTreeMap::new();
        let mut section = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let (line, had_comment) = match line.split_once('#') {
                Some((line, _)) => (line.trim(), true),
                None => (line.trim(), false),
            };
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
                if !Network::ALL.iter().any(|network| section_of(*network) == name) {
                    self.warnings.push(format!("Section [{name}] is not recognized."));
                }
                continue;
            }
            ensure!(
                !line.starts_with('-'),
                "parse error on line {number}: {line}, options in configuration file must be specified without leading -"
            );
            let (key, value) = line
                .split_once('=')
                .with_context(|| format!("parse error on line {number}: {line}"))?;
            let (key, value) = (key.trim(), value.trim());
            ensure!(
                !(had_comment && key.contains("rpcpassword")),
                "parse error on line {number}, using # in rpcpassword can be ambiguous and should be avoided"
            );
            let (section, key) = match key.split_once('.') {
                Some((network, key)) if section.is_empty() => (network, key),
                _ => (section.as_str(), key),
            };
            ensure!(
                key != "conf",
                "conf cannot be set in the configuration file; use includeconf= if you want to include additional config files"
            );
            let known_to_other = [Program::Daemon, Program::Cli]
                .into_iter()
                .any(|other| interpret(other, key, Some(value)).is_some());
            match interpret(program, key, Some(value)) {
                Some((name, said)) => {
                    let source = sections.entry(section.to_owned()).or_default();
                    source.entry(name).or_default().push(said);
                }
                // One file serves both programs.
                None if known_to_other => {}
                None => self
                    .warnings
                    .push(format!("Ignoring unknown configuration value {key}")),
            }
        }
        Ok(sections)
    }

    fn chosen_network(&self) -> anyhow::Result<Network> {
        let mut chosen: Vec<String> = self.text("chain").into_iter().collect();
        chosen.extend(
            NETWORK_SWITCHES
                .iter()
                .filter(|name| self.is_on(name))
                .map(|&name| name.to_owned()),
        );
        ensure!(
            chosen.len() <= 1,
            "Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. Can use at most one."
        );
        Ok(match chosen.first().map(String::as_str) {
            None | Some("main") => Network::Mainnet,
            Some("test" | "testnet") => Network::Testnet3,
            Some("testnet4") => Network::Testnet4,
            Some("signet") => Network::Signet,
            Some("regtest") => Network::Regtest,
            Some(other) => bail!("Unknown chain {other}."),
        })
    }

    /// Refuses what cannot be carried out and warns of what is not.
    fn judge(&mut self, program: Program) -> anyhow::Result<()> {
        let names: std::collections::BTreeSet<String> = [&self.command, &self.section, &self.common]
            .into_iter()
            .flat_map(|source| source.keys().cloned())
            .collect();
        for name in names {
            let Some(option) = options::find(program, &name) else {
                continue;
            };
            if option.in_section && self.is_misplaced(&name) {
                self.warnings.push(format!(
                    "Config setting for -{name} only applied on {0} network when in [{0}] section.",
                    section_of(self.network)
                ));
            }
            if !self.list(&name).iter().any(|value| is_true(value)) {
                continue;
            }
            match option.effect {
                Effect::Works(_) | Effect::Idle => {}
                Effect::Ignored => self
                    .warnings
                    .push(format!("-{name} has no effect in this version of Dunlin.")),
                Effect::Refused => bail!("-{name} cannot be carried out by this version of Dunlin; start without it."),
            }
        }
        Ok(())
    }

    /// Whether an option stands in the file only where it does not count for the network.
    fn is_misplaced(&self, name: &str) -> bool {
        self.network != Network::Mainnet
            && self.common.contains_key(name)
            && !self.section.contains_key(name)
            && !self.command.contains_key(name)
    }

    fn sources(&self, name: &str) -> impl Iterator<Item = &Vec<Said>> {
        let common_counts = self.network == Network::Mainnet
            || ![Program::Daemon, Program::Cli]
                .into_iter()
                .filter_map(|program| options::find(program, name))
                .any(|option| option.in_section);
        let common = Some(&self.common).filter(|_| common_counts);
        [self.section.get(name), common.and_then(|common| common.get(name))]
            .into_iter()
            .flatten()
    }

    fn said(&self, name: &str) -> Option<&Said> {
        let last = self.command.get(name).and_then(|said| said.last());
        last.or_else(|| self.sources(name).find_map(|said| said.first()))
    }

    /// The value of an option that is given and not negated.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.said(name)? {
            Said::Off => None,
            Said::Text(text) => Some(text.clone()),
        }
    }

    /// Whether an option is switched on, where it is mentioned at all.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.said(name).map(|said| match said {
            Said::Off => false,
            Said::Text(text) => is_true(text),
        })
    }

    /// Whether an option is switched on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.switch(name).unwrap_or(false)
    }

    /// The number that an option is given.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("Invalid -{name}: '{text}' is not a number in its range."),
        }
    }

    /// All values of an option that may be repeated; a negation forgets those before it and in weaker sources.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        for said in self.command.get(name).into_iter().chain(self.sources(name)) {
            let start = said.iter().rposition(|said| *said == Said::Off);
            values.extend(
                said.iter()
                    .skip(start.map_or(0, |at| at + 1))
                    .filter_map(|said| match said {
                        Said::Text(text) => Some(text.clone()),
                        Said::Off => None,
                    }),
            );
            if start.is_some() {
                break;
            }
        }
        values
    }

    /// A path that is relative to `base` unless it is absolute; none when the option is negated.
    pub(super) fn path(&self, name: &str, base: &Path, default: &str) -> Option<PathBuf> {
        match self.said(name) {
            Some(Said::Off) => None,
            Some(Said::Text(text)) if !text.is_empty() => Some(base.join(text)),
            _ => Some(base.join(default)),
        }
    }
}

/// What a key and its value mean to a program; none when it does not know the option.
fn interpret(program: Program, key: &str, value: Option<&str>) -> Option<(String, Said)> {
    if options::find(program, key).is_some() {
        return Some((key.to_owned(), Said::Text(value.unwrap_or_default().to_owned())));
    }
    let name = key.strip_prefix("no")?;
    options::find(program, name)?;
    let said = match value {
        Some(value) if !is_true(value) => Said::Text("1".to_owned()),
        _ => Said::Off,
    };
    Some((name.to_owned(), said))
}

/// Whether a value switches an option on: nothing does, and everything but zeros. (Names of files and hosts are values,
/// too, so that text is not read as zero.)
fn is_true(text: &str) -> bool {
    let digits = text.trim();
    digits.is_empty() || !digits.chars().all(|digit| digit == '0')
}

/// The section of `bitcoin.conf` for a network.
fn section_of(network: Network) -> &'static str {
    match network {
        Network::Mainnet => "main",
        Network::Testnet3 => "test",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

fn default_data_dir() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from(".bitcoin"), |home| Path::new(&home).join(".bitcoin"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(program: Program, conf: &str, args: &[&str]) -> anyhow::Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONF_FILE), conf).unwrap();
        let mut all = vec![format!("-datadir={}", dir.path().display())];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        Settings::read(program, &all)
    }

    fn fault(conf: &str, args: &[&str]) -> String {
        format!("{:#}", read(Program::Daemon, conf, args).unwrap_err())
    }

    #[test]
    fn the_command_line_wins_then_the_section_then_the_rest() {
        let conf =
            "regtest=1\ndbcache=10\nrpcport=1\nuacomment=a\n[regtest]\ndbcache=20\ndbcache=21\nuacomment=b\nport=7\n";
        let settings = read(
            Program::Daemon,
            conf,
            &["--uacomment=c", "-listen", "-listen=0", "-nodnsseed"],
        )
        .unwrap();
        assert_eq!(settings.network, Network::Regtest);
        assert_eq!(settings.number("dbcache").unwrap(), Some(20));
        assert_eq!(settings.list("uacomment"), ["c", "b", "a"]);
        assert_eq!(settings.number("port").unwrap(), Some(7));
        assert_eq!(
            settings.number::<u16>("rpcport").unwrap(),
            None,
            "it stands outside of its section"
        );
        assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
        assert_eq!(
            (settings.switch("listen"), settings.switch("dnsseed")),
            (Some(false), Some(false))
        );
        let settings = read(Program::Daemon, conf, &["-nouacomment", "-uacomment=d", "-dbcache=5"]).unwrap();
        assert_eq!(settings.list("uacomment"), ["d"]);
        assert_eq!(settings.number("dbcache").unwrap(), Some(5));
        let settings = read(Program::Daemon, "", &["-nolisten=0"]).unwrap();
        assert_eq!(settings.switch("listen"), Some(true));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(fault("", &["-colour=red"]).contains("Invalid parameter -colour=red"));
        assert!(fault("", &["word"]).contains("unexpected token 'word'"));
        assert!(fault("", &["-regtest", "-signet"]).contains("at most one"));
        assert!(fault("", &["-chain=mars"]).contains("Unknown chain mars"));
        assert!(fault("server\n", &[]).contains("parse error on line 1"));
        assert!(fault("\n-server=1\n", &[]).contains("parse error on line 2"));
        assert!(fault("rpcpassword=a#b\n", &[]).contains("rpcpassword"));
        assert!(fault("peerbloomfilters=1\n", &[]).contains("-peerbloomfilters cannot be carried out"));
        assert!(fault("", &["-conf=nowhere.conf"]).contains("could not be opened"));
        assert!(
            fault("", &["-datadir=/does/not/exist"])
                .contains("Specified data directory \"/does/not/exist\" does not exist.")
        );
        let settings = read(
            Program::Daemon,
            "colour=red\nfallbackfee=0.1\npeerbloomfilters=0\n",
            &[],
        )
        .unwrap();
        assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
    }

    #[test]
    fn the_method_ends_the_options_of_the_client() {
        let settings = read(Program::Cli, "txindex=1\n", &["-regtest", "getblockhash", "-1"]).unwrap();
        assert_eq!(settings.words, ["getblockhash", "-1"]);
        assert!(settings.warnings.is_empty());
    }
}
