//! What a method is: the one definition from which dispatch, argument checks and `help` come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use super::error::RpcError;
use super::server::Shared;

/// One method.
pub(crate) struct Method {
    /// Its name on the wire.
    pub name: &'static str,
    /// The heading it stands under in `help`.
    pub group: &'static str,
    /// What it does, in a sentence or two.
    pub about: &'static str,
    /// Its arguments, by position.
    pub args: &'static [Arg],
    /// What it answers.
    pub result: &'static str,
    /// The code.
    pub run: Run,
}

/// One argument.
pub(crate) struct Arg {
    /// Its name; others that mean the same follow after `|`.
    pub names: &'static str,
    /// Its JSON type.
    pub kind: Kind,
    /// Whether it can be left out.
    pub need: Need,
    /// What it means.
    pub about: &'static str,
}

/// The JSON type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Str,
    /// A string of hex digits.
    Hex,
    /// A number.
    Num,
    /// True or false.
    Bool,
    /// A number or string of bitcoins.
    Amount,
    /// A number, true or false; checked by the method itself.
    NumOrBool,
    /// Checked by the method itself.
    Any,
    /// A list.
    List,
    /// An object.
    Object,
    /// An object of options with these names, each of which may also be given as a named argument.
    Options(&'static [&'static str]),
}

/// Whether an argument can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It must be there.
    Required,
    /// It may be left out.
    Optional,
    /// It may be left out and counts as this then.
    Default(&'static str),
    /// It may be left out and `help` does not mention it.
    Hidden,
}

/// What a call answers.
pub(crate) type Answer = Result<Value, RpcError>;

/// How a method runs.
pub(crate) enum Run {
    /// It reads disk or memory: on a thread that may block.
    Blocking(fn(&Call) -> Answer),
    /// It waits for the program's machines.
    Async(fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// One call, arguments already in position.
pub(crate) struct Call {
    /// The server's state.
    pub shared: Arc<Shared>,
    /// The method called.
    pub method: &'static Method,
    /// Its arguments; those at the end may be missing.
    pub args: Vec<Value>,
}

impl Arg {
    /// An argument that must be there.
    pub(crate) const fn required(names: &'static str, kind: Kind, about: &'static str) -> Self {
        Self {
            names,
            kind,
            need: Need::Required,
            about,
        }
    }

    /// An argument that may be left out.
    pub(crate) const fn optional(names: &'static str, kind: Kind, about: &'static str) -> Self {
        Self {
            names,
            kind,
            need: Need::Optional,
            about,
        }
    }

    /// An argument that counts as `default` when left out.
    pub(crate) const fn default(names: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Self {
        Self {
            names,
            kind,
            need: Need::Default(default),
            about,
        }
    }

    /// An argument for tests, not shown in `help`.
    pub(crate) const fn hidden(names: &'static str, kind: Kind) -> Self {
        Self {
            names,
            kind,
            need: Need::Hidden,
            about: "",
        }
    }

    /// The name that `help` shows.
    pub(crate) fn name(&self) -> &'static str {
        self.names.split('|').next().unwrap_or(self.names)
    }
}
