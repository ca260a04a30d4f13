//! Which values of the file no message may show. Tests: `problem`, `tests/it/config.rs`.

use super::nearest::nearest;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value in the text that must not be shown, unless (`shy`) the problem is about it.
#[derive(Debug, Clone)]
pub(super) struct Veil {
    pub(super) span: Range<usize>,
    pub(super) shy: bool,
}
/// Every value of the tree that an excerpt must mask.
pub(super) fn veils(table: &DeTable<'_>) -> Vec<Veil> {
    let mut veils = Vec::new();
    veil_table(table, false, &mut veils);
    veils
}

fn veil_table(table: &DeTable<'_>, secret: bool, veils: &mut Vec<Veil>) {
    for (key, node) in table {
        veil_value(node, secret || is_secret(key.get_ref()), veils);
    }
}

fn veil_value(node: &Spanned<DeValue<'_>>, secret: bool, veils: &mut Vec<Veil>) {
    match node.get_ref() {
        DeValue::Table(table) => veil_table(table, secret, veils),
        DeValue::Array(nodes) => nodes.iter().for_each(|node| veil_value(node, secret, veils)),
        DeValue::String(_) => {
            let shy = !secret && !node.get_ref().as_str().is_some_and(may_hold_password);
            veils.push(Veil { span: node.span(), shy });
        }
        _ if secret => veils.push(Veil { span: node.span(), shy: false }),
        _ => {}
    }
}

/// Does a key (or the last key of a path) hold a secret? Misspelt ones count as well.
pub(super) fn is_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let key = key.split('[').next().unwrap_or(&key);
    let near = ["secrets", "token", "signing_key", "password", "url"];
    !key.ends_with("_file")
        && (nearest(key, near).is_some()
            || ["secret", "token", "passw", "crypto"].iter().any(|part| key.contains(part)))
}

/// A URL may hold a password, wherever it stands.
pub(super) fn may_hold_password(text: &str) -> bool {
    text.contains('@')
}
