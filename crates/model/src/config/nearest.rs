//! "Did you mean": the known word nearest to what was written.

/// The known word nearest to `written`, when it is near enough to be a slip of the hand.
///
/// A third of the letters may differ; transposed neighbours count as one slip.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(written);
    known
        .into_iter()
        .map(|word| (distance(&folded, &fold(word)), word))
        .filter(|(distance, word)| *distance <= word.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn fold(word: &str) -> Vec<char> {
    // 64: names are at most 63 long, and the distance is quadratic.
    word.to_lowercase().replace('-', "_").chars().take(64).collect()
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut before_last: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (row, left) in a.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for (column, right) in b.iter().enumerate() {
            let substituted = last[column] + usize::from(left != right);
            let mut best = substituted.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *left == b[column - 1] && a[row - 1] == *right {
                best = best.min(before_last[column - 1] + 1);
            }
            current[column + 1] = best;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["owner", "tier", "rpo", "rto", "depends_on", "stale_after", "color"];
        for (written, meant) in [
            ("onwer", Some("owner")),
            ("Tier", Some("tier")),
            ("depends-on", Some("depends_on")),
            ("stale_afer", Some("stale_after")),
            ("colour", Some("color")),
            ("rp", Some("rpo")),
            ("banana", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }
}
