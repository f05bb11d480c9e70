//! nginx's words and directives, read to typed actions.

use std::{iter::Peekable, str::Chars};

use http::{HeaderName, StatusCode};

use super::{
    super::{template::Template, value::regex_with_case},
    Action, Block, Condition, Snippet, Test, is_redirect,
};

/// Longest snippet that is read.
const SNIPPET_BYTES_MAX: usize = 16 << 10;
/// Directives of one snippet.
const ACTIONS_MAX: usize = 64;

impl Snippet {
    /// Reads one; an error names the line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SNIPPET_BYTES_MAX {
            return Err("is too long".to_owned());
        }
        let mut reader = Reader { tokens: tokens(text)?.into_iter().peekable() };
        let mut blocks = Vec::new();
        while reader.tokens.peek().is_some() {
            reader.statement(false, &mut blocks)?;
        }
        if blocks.iter().map(|(_, actions)| actions.len()).sum::<usize>() > ACTIONS_MAX {
            return Err("has too many directives".to_owned());
        }
        let blocks = blocks.into_iter().filter(|(_, actions)| !actions.is_empty());
        Ok(Self(blocks.map(|(condition, actions)| Block::new(condition, actions)).collect()))
    }
}

/// One word, quoted or not, or one of `;{}`; and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) is_mark: bool,
    line: usize,
}

struct Reader {
    tokens: Peekable<std::vec::IntoIter<Token>>,
}

/// nginx's words (ngx_conf_read_token): quotes, escapes, comments to the end of the line.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let start = line;
        let mut word = String::new();
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' | '{' | '}' => {
                tokens.push(Token { text: c.to_string(), is_mark: true, line });
            }
            quote @ ('"' | '\'') => {
                loop {
                    match rest.next() {
                        None => return Err(format!("line {start}: a quote that does not end")),
                        Some(c) if c == quote => break,
                        Some(c) => line += push(c, &mut rest, &mut word),
                    }
                }
                tokens.push(Token { text: word, is_mark: false, line: start });
            }
            c => {
                let mut depth = 0usize;
                let mut next = Some(c);
                while let Some(c) = next {
                    match c {
                        '{' => depth += 1,
                        '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    line += push(c, &mut rest, &mut word);
                    next = rest.next_if(|c| {
                        // `${name}` is part of its word.
                        let is_brace = *c == '{' && word.ends_with('$') || (*c == '}' && depth > 0);
                        is_brace || !(c.is_whitespace() || [';', '{', '}'].contains(c))
                    });
                }
                tokens.push(Token { text: word, is_mark: false, line: start });
            }
        }
    }
    Ok(tokens)
}

/// Puts a character behind a word, of a backslash and the next one what they stand for in any word. Before
/// others it stays, and those mean nothing but themselves. Returns how many lines end there.
fn push(c: char, rest: &mut Peekable<Chars<'_>>, word: &mut String) -> usize {
    let mut ends = usize::from(c == '\n');
    if c != '\\' {
        word.push(c);
        return ends;
    }
    match rest.next() {
        Some('t') => word.push('\t'),
        Some('r') => word.push('\r'),
        Some('n') => word.push('\n'),
        Some(c @ ('"' | '\'' | '\\')) => word.push(c),
        Some(c) => {
            ends += usize::from(c == '\n');
            word.extend(['\\', c]);
        }
        None => word.push('\\'),
    }
    ends
}

impl Reader {
    /// One directive, or an `if` and its block; `is_inside`: of the last one.
    fn statement(
        &mut self,
        is_inside: bool,
        blocks: &mut Vec<(Option<Condition>, Vec<Action>)>,
    ) -> Result<(), String> {
        let Some(first) = self.tokens.next() else { return Ok(()) };
        let line = first.line;
        if first.is_mark {
            return match &*first.text {
                ";" => Ok(()),
                mark => Err(format!("line {line}: {mark} where a directive is expected")),
            };
        }
        let mut words = Vec::new();
        let end = loop {
            match self.tokens.next() {
                Some(token) if token.is_mark => break token.text,
                Some(token) => words.push(token.text),
                None => return Err(format!("line {line}: {} has no end", first.text)),
            }
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (&*first.text, &*end) {
            ("if", "{") if !is_inside => {
                let condition =
                    if_condition(&words).map_err(|why| format!("line {line}: {why}"))?;
                blocks.push((Some(condition), Vec::new()));
                loop {
                    match self.tokens.peek() {
                        Some(token) if token.is_mark && token.text == "}" => {
                            self.tokens.next();
                            return Ok(());
                        }
                        Some(_) => self.statement(true, blocks)?,
                        None => return Err(format!("line {line}: if has no end")),
                    }
                }
            }
            (name, ";") => {
                let actions = actions(name, &words).map_err(|why| format!("line {line}: {why}"))?;
                match blocks.last_mut() {
                    Some((condition, last)) if is_inside || condition.is_none() => {
                        last.extend(actions);
                    }
                    _ => blocks.push((None, actions)),
                }
                Ok(())
            }
            (name, _) => Err(format!("line {line}: {name} with a block is not served")),
        }
    }
}

fn if_condition(words: &[&str]) -> Result<Condition, String> {
    const WRONG: &str = "this if is not served: compare one variable by =, !=, ~, ~*, !~ or !~*";
    let mut words: Vec<&str> = words.to_vec();
    let first = words.first_mut().ok_or(WRONG)?;
    *first = first.strip_prefix('(').ok_or(WRONG)?;
    let last = words.last_mut().ok_or(WRONG)?;
    *last = last.strip_suffix(')').ok_or(WRONG)?;
    // Brackets apart from what they are around, as `( $a = "" )` has them.
    if words.len() > 1 && words.first().is_some_and(|word| word.is_empty()) {
        words.remove(0);
    }
    if words.len() == 4 || (words.len() == 2 && words.last().is_some_and(|word| word.is_empty())) {
        words.pop().filter(|word| word.is_empty()).ok_or(WRONG)?;
    }
    let (left, operator, right) = match &*words {
        [left] => (*left, None, None),
        [left, operator, right] => (*left, Some(*operator), Some(*right)),
        _ => return Err(WRONG.to_owned()),
    };
    let is_variable = left.starts_with('$');
    let template = |text: &str| Template::parse(text).map_err(|why| format!("if {why}"));
    let left = template(left)?;
    if !is_variable || left.captures() {
        return Err(WRONG.to_owned());
    }
    let regex = |text: &str, ignores_case: bool| {
        let text = if ignores_case { format!("(?i){text}") } else { text.to_owned() };
        regex_with_case(&text).map_err(|_| "if with no regular expression served here".to_owned())
    };
    let test = match (operator, right) {
        (None, None) => Test::Set,
        (Some("="), Some(right)) => Test::Is(template(right)?, true),
        (Some("!="), Some(right)) => Test::Is(template(right)?, false),
        (Some("~"), Some(right)) => Test::Matches(regex(right, false)?, true),
        (Some("~*"), Some(right)) => Test::Matches(regex(right, true)?, true),
        (Some("!~"), Some(right)) => Test::Matches(regex(right, false)?, false),
        (Some("!~*"), Some(right)) => Test::Matches(regex(right, true)?, false),
        _ => return Err(WRONG.to_owned()),
    };
    Ok(Condition { left, test })
}

fn actions(name: &str, words: &[&str]) -> Result<Vec<Action>, String> {
    match (name, words) {
        ("more_set_headers", words) if !words.is_empty() => words
            .iter()
            .map(|word| {
                if word.starts_with('-') {
                    return Err(format!("{name} {word} is not served"));
                }
                let (field, text) = word.split_once(':').unwrap_or((word, ""));
                Ok(Action::SetAlways(field_name(field)?, field_text(text.trim())?))
            })
            .collect(),
        ("more_clear_headers", words) if !words.is_empty() => {
            words.iter().map(|word| Ok(Action::Clear(field_name(word)?))).collect()
        }
        ("add_header", [field, text]) => {
            let (name, text) = (field_name(field)?, field_text(text)?);
            Ok(vec![Action::Add { name, text, always: false }])
        }
        ("add_header", [field, text, "always"]) => {
            let (name, text) = (field_name(field)?, field_text(text)?);
            Ok(vec![Action::Add { name, text, always: true }])
        }
        ("proxy_set_header" | "grpc_set_header", [field, text]) => {
            Ok(vec![Action::ToEndpoint(field_name(field)?, field_text(text)?)])
        }
        ("return", [status]) if !status.contains("://") => {
            Ok(vec![Action::Return(status_of(status)?, None)])
        }
        ("return", [url]) => Ok(vec![Action::Return(StatusCode::FOUND, Some(field_text(url)?))]),
        ("return", [status, text]) => {
            let status = status_of(status)?;
            let text = if is_redirect(status) { field_text(text)? } else { body_text(text)? };
            // nginx: with an empty one it is as without.
            Ok(vec![Action::Return(status, Some(text).filter(|text| text.constant() != Some("")))])
        }
        _ => Err(format!("{name} is not served here, or not so; nothing is executed")),
    }
}

fn status_of(text: &str) -> Result<StatusCode, String> {
    let status = text.parse::<u16>().ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| format!("return {text}: no status that is answered"))
}

/// Fields that say how long a message is and whose connection it is on.
pub(in super::super) fn is_ours(name: &HeaderName) -> bool {
    const OURS: [&str; 6] =
        ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];
    OURS.contains(&name.as_str())
}

/// The name of a field that is not ours.
pub(in super::super) fn field_name(text: &str) -> Result<HeaderName, String> {
    let name: Result<HeaderName, _> = text.trim().parse();
    // Behind its first word may be a value that lacks its colon.
    let first = || text.split_whitespace().next().unwrap_or_default();
    let name = name.map_err(|_| format!("{:?} begins no field", first()))?;
    if is_ours(&name) {
        return Err(format!("{name} is not set by snippets"));
    }
    Ok(name)
}

/// A text that fits in a field.
pub(in super::super) fn field_text(text: &str) -> Result<Template, String> {
    if !text.bytes().all(|b| b == b' ' || b == b'\t' || b.is_ascii_graphic()) {
        return Err("a text holds what no field holds".to_owned());
    }
    body_text(text)
}

/// A text that is a body: it may hold anything.
fn body_text(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|why| format!("a text {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        for text in [
            "more_set_headers \"X-Frame-Options: DENY\";",
            "more_set_headers 'X-A: 1' 'X-B: $http_x_user';\nmore_clear_headers Server;",
            "add_header X-A \"1\" always; # a comment; with a semicolon\n",
            "proxy_set_header X-User $http_x_user;\nproxy_set_header X-None \"\";",
            "if ($http_x_user = \"\") {\n  return 403;\n}",
            "if ($request_method !~* ^(get|post)$) { return 405 'no'; }",
            "return 301 https://b.example${request_uri};",
            "if ($host != 'www.a.example') { return 301 https://www.a.example$request_uri; }",
            "return 200 \"two\nlines, \u{e4}\";",
            ";;\n",
            "",
        ] {
            assert!(Snippet::parse(text).is_ok(), "{text:?}: {:?}", Snippet::parse(text));
        }
    }

    /// As nginx reads them: it was asked. They stayed as they were written but for quotes in quotes.
    #[test]
    fn bug_backslashes_mean_what_they_do_to_nginx() {
        for (text, expected) in [
            (r#""a\nb\tc\rd""#, "a\nb\tc\rd"),
            (r#""a\"b\'c\\d""#, "a\"b'c\\d"),
            (r#"'a\"b\'c\\d'"#, "a\"b'c\\d"),
            (r"a\nb\ c\;d\{e", "a\nb\\ c\\;d\\{e"),
            (r"\.php$", "\\.php$"),
            (r"\\.php$", "\\.php$"),
            (r#""\x\.\d""#, "\\x\\.\\d"),
            (r#"\"a"#, "\"a"),
            ("a\\", "a\\"),
            ("${a}b", "${a}b"),
        ] {
            let words = tokens(text).unwrap();
            let words: Vec<&str> = words.iter().map(|token| &*token.text).collect();
            assert_eq!(words, [expected], "{text}");
        }
    }

    #[test]
    fn cve_2021_25742_anything_else_refuses_the_snippet_with_its_line() {
        for (text, line, word) in [
            ("add_header X-A 1;\nproxy_pass http://169.254.169.254/;", 2, "proxy_pass"),
            ("location /x { return 200; }", 1, "location"),
            ("content_by_lua_block { os.execute(1) }", 1, "content_by_lua_block"),
            ("\n\nroot /etc;", 3, "root"),
            ("}\nserver {", 1, "}"),
            ("if ($a = b) { return 200; }", 1, "$a"),
            ("if ($1 = b) { return 200; }", 1, "compare one variable"),
            ("if ($host = a) { if ($host = a) { return 200; } }", 1, "if"),
            ("add_header X-A \"1;", 1, "quote"),
            ("add_header X-A 1", 1, "no end"),
            ("return 99;", 1, "99"),
            ("proxy_set_header Transfer-Encoding chunked;", 1, "transfer-encoding"),
            ("more_set_headers \"X: a\nSet-Cookie: b\";", 1, "no field"),
            ("more_set_headers \"X: a\\r\\nSet-Cookie: b\";", 1, "no field"),
            ("add_header X \"a\\nSet-Cookie: b\";", 1, "no field"),
            ("return 302 /a\\r\\nSet-Cookie:b;", 1, "no field"),
            ("return \"https://b/\\nSet-Cookie: b\";", 1, "no field"),
            ("more_clear_headers 'X\\nY';", 1, "begins no field"),
            ("add_header X 'a\\\nb';\nroot /;", 1, "no field"),
            ("add_header X-A \\a;\nroot /;", 2, "root"),
            ("return 200 'a\\\nb\n';\nroot /;", 4, "root"),
            ("more_set_headers -s 404 'X: y';", 1, "-s"),
            ("more_set_headers 'Authorization Bearer';", 1, "\"Authorization\" begins no field"),
            ("if ($host ~ \"(\") { return 403; }", 1, "no regular expression"),
            ("if ($host = $ssl_server_name) { return 200; }", 1, "$ssl_server_name"),
            ("if ($host = \"a$\") { return 200; }", 1, "a $ without a variable"),
            ("ssl_certificate_key /proc/self/environ;", 1, "ssl_certificate_key"),
        ] {
            let reason = Snippet::parse(text).unwrap_err();
            assert!(reason.starts_with(&format!("line {line}: ")), "{text:?}: {reason}");
            assert!(reason.contains(word), "{text:?}: {reason}");
        }
    }
}
