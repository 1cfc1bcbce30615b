//! The `help` texts, made from the method definitions.

use super::method::{Arg, Kind, Method, Need};

/// The group of methods that are not listed.
pub(crate) const HIDDEN: &str = "hidden";

/// One line per method, under the headings of its groups.
pub(crate) fn list(methods: &[&'static Method]) -> String {
    let mut sorted: Vec<&Method> = methods
        .iter()
        .copied()
        .filter(|method| method.group != HIDDEN)
        .collect();
    sorted.sort_by_key(|method| (method.group, method.name));
    let mut text = String::new();
    let mut group = "";
    for method in sorted {
        if method.group != group {
            if !group.is_empty() {
                text.push('\n');
            }
            group = method.group;
            let mut letters = group.chars();
            let heading: String = letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect();
            text.push_str(&format!("== {heading} ==\n"));
        }
        text.push_str(&synopsis(method));
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// All there is to say about one method.
pub(crate) fn of(method: &Method) -> String {
    let mut text = format!("{}\n\n{}\n", synopsis(method), method.about);
    let shown: Vec<&Arg> = method.args.iter().filter(|arg| arg.need != Need::Hidden).collect();
    if !shown.is_empty() {
        text.push_str("\nArguments:\n");
        let labels: Vec<String> = shown
            .iter()
            .enumerate()
            .map(|(index, arg)| format!("{}. {}", index + 1, arg.name()))
            .collect();
        let width = labels.iter().map(String::len).max().unwrap_or(0);
        for (label, arg) in labels.iter().zip(&shown) {
            let kind = match arg.kind {
                Kind::Str | Kind::Hex => "string",
                Kind::Num => "numeric",
                Kind::Bool => "boolean",
                Kind::Amount => "numeric or string",
                Kind::NumOrBool => "numeric",
                Kind::Any => "json",
                Kind::List => "json array",
                Kind::Object => "json object",
                Kind::Options(_) => "json object",
            };
            let need = match arg.need {
                Need::Required => "required".to_owned(),
                Need::Default(value) => format!("optional, default={value}"),
                Need::Optional | Need::Hidden => "optional".to_owned(),
            };
            text.push_str(&format!("{label:width$}    ({kind}, {need}) {}\n", arg.about));
        }
    }
    text.push_str(&format!("\nResult:\n{}\n", method.result));
    text.push_str(&examples(method));
    text
}

/// A call with the arguments that it must have, from a shell and over HTTP.
fn examples(method: &Method) -> String {
    let needed = method.args.iter().filter(|arg| arg.need == Need::Required);
    let sample = |arg: &Arg| match arg.kind {
        Kind::Num | Kind::NumOrBool => "1".to_owned(),
        Kind::Bool => "true".to_owned(),
        Kind::Amount => "0.1".to_owned(),
        Kind::List => "[]".to_owned(),
        Kind::Object | Kind::Options(_) => "{}".to_owned(),
        Kind::Str | Kind::Hex | Kind::Any => format!("\"{}\"", arg.name()),
    };
    let values: Vec<String> = needed.map(sample).collect();
    let in_shell = values.iter().map(|value| match value.as_str() {
        "[]" | "{}" => format!(" '{value}'"),
        plain => format!(" {plain}"),
    });
    format!(
        "\nExamples:\n> bitcoin-cli {name}{}\n> curl --user myuser --data-binary '{{\"jsonrpc\": \"2.0\", \"id\": \
         \"curltest\", \"method\": \"{name}\", \"params\": [{}]}}' -H 'content-type: application/json' \
         http://127.0.0.1:8332/\n",
        in_shell.collect::<String>(),
        values.join(", "),
        name = method.name,
    )
}

/// The method and its arguments on one line, those that may be left out in parentheses.
fn synopsis(method: &Method) -> String {
    let mut line = method.name.to_owned();
    let mut open = false;
    for arg in method.args.iter().take_while(|arg| arg.need != Need::Hidden) {
        match (arg.need == Need::Required, open) {
            (false, false) => line.push_str(" ("),
            (true, true) => line.push_str(" )"),
            _ => {}
        }
        open = arg.need != Need::Required;
        match arg.kind {
            Kind::Str | Kind::Hex => line.push_str(&format!(" \"{}\"", arg.name())),
            Kind::List => line.push_str(&format!(" [\"{}\",...]", arg.name())),
            Kind::Object => line.push_str(&format!(" {}", arg.name())),
            _ => line.push_str(&format!(" {}", arg.name())),
        }
    }
    if open {
        line.push_str(" )");
    }
    line
}
