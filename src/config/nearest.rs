//! The nearest valid name to a mistyped one. Knows no configuration. Tests: below.

/// The candidate that a person most likely meant, if one is near enough to be worth saying.
///
/// Case and `_`/`-` do not count, so that express-session's `saveUninitialized` finds `save_uninitialized`.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = fold(typed);
    let measure = |candidate| {
        let folded = fold(candidate);
        let allowed = (typed.len().max(folded.len()) / 3).max(1);
        let distance = distance(&typed, &folded);
        (distance <= allowed).then_some((distance, candidate))
    };
    candidates
        .into_iter()
        .filter_map(measure)
        .min_by_key(|(distance, candidate)| (*distance, !fold(candidate).starts_with(&typed)))
        .map(|(_, candidate)| candidate)
}

fn fold(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Edit distance with swaps of neighbours counted as one (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_and_express_spellings_find_their_key() {
        let keys = ["resave", "rolling", "save_uninitialized", "secrets", "unset"];
        assert_eq!(nearest("roling", keys), Some("rolling"));
        assert_eq!(nearest("rollnig", keys), Some("rolling"));
        assert_eq!(nearest("saveUninitialized", keys), Some("save_uninitialized"));
        assert_eq!(nearest("secret", keys), Some("secrets"));
        assert_eq!(nearest("mongo", ["memory", "mongodb"]), Some("mongodb"));
        assert_eq!(nearest("of", ["on", "off"]), Some("off"));
        assert_eq!(nearest("colour", keys), None);
    }

    #[test]
    fn distance_counts_edits() {
        let of = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!((of("", "abc"), of("abc", ""), of("abc", "abc")), (3, 3, 0));
        assert_eq!((of("kitten", "sitting"), of("ab", "ba")), (3, 1));
    }
}
