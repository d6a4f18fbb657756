//! Text of others on a terminal.

/// Whether a character steers a terminal or hides what a text says: control characters, and the invisible ones that
/// turn its direction or take no room.
pub fn is_steering(c: char) -> bool {
    const INVISIBLE: &[(char, char)] = &[
        ('\u{ad}', '\u{ad}'),
        ('\u{61c}', '\u{61c}'),
        ('\u{180e}', '\u{180e}'),
        ('\u{200b}', '\u{200f}'),
        ('\u{2028}', '\u{202e}'),
        ('\u{2060}', '\u{206f}'),
        ('\u{feff}', '\u{feff}'),
        ('\u{fff9}', '\u{fffb}'),
        ('\u{e0000}', '\u{e007f}'),
    ];
    c.is_control() || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// The known word nearest to `word`, if one is near enough to be meant: at most a third of its letters
/// differ, are missing, too many or swapped.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= far).min().map(|(_, candidate)| candidate)
}

/// Changes that turn one word into the other; swapping two neighbours counts as one (optimal string
/// alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let change = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_meant() {
        let known = ["research", "product", "nlp"];
        assert_eq!(nearest("reserch", known), Some("research"));
        assert_eq!(nearest("nlpp", known), Some("nlp"));
        assert_eq!(nearest("npl", known), Some("nlp"));
        assert_eq!(nearest("finance", known), None);
    }

    #[test]
    fn what_steers_or_hides_is_told_from_what_is_seen() {
        for c in ['\u{1b}', '\n', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{e0041}'] {
            assert!(is_steering(c), "{c:?}");
        }
        for c in ['a', ' ', 'ä', '語', '–', '😀', '\u{301}'] {
            assert!(!is_steering(c), "{c:?}");
        }
    }
}
