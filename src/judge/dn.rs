//! The Subject of an agent's certificate, from a template of its class, for systems that read only the distinguished name.

use super::template::{Facts, Part, Template, Variable, check_name};
use super::{Check, Judgement};
use crate::denial::Denial;
use crate::state::Agent;

/// Most attributes of one Subject.
const ATTRIBUTES: usize = 8;
/// Most bytes of all values of one Subject, so that the certificate stays well below what verifiers accept.
const BYTES: usize = 1024;

/// How the value of an attribute is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF8String.
    Utf8,
    /// PrintableString.
    Printable,
    /// IA5String.
    Ia5,
}

/// A type of attribute.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name in RFC 4514 or the registries that it refers to.
    pub name: &'static str,
    /// Its object identifier.
    pub oid: &'static [u64],
    /// How its values are encoded (RFC 5280 appendix A, RFC 4519).
    pub encoding: Encoding,
    /// Most characters of a value: the upper bounds of X.520, and of RFC 4524 for UID.
    pub most: usize,
}

/// The attributes that a template may have.
static KNOWN: &[Attribute] = &[
    Attribute { name: "CN", oid: &[2, 5, 4, 3], encoding: Encoding::Utf8, most: 64 },
    Attribute { name: "O", oid: &[2, 5, 4, 10], encoding: Encoding::Utf8, most: 64 },
    Attribute { name: "OU", oid: &[2, 5, 4, 11], encoding: Encoding::Utf8, most: 64 },
    Attribute { name: "UID", oid: &[0, 9, 2342, 19_200_300, 100, 1, 1], encoding: Encoding::Utf8, most: 256 },
    Attribute { name: "DC", oid: &[0, 9, 2342, 19_200_300, 100, 1, 25], encoding: Encoding::Ia5, most: 63 },
    Attribute { name: "L", oid: &[2, 5, 4, 7], encoding: Encoding::Utf8, most: 128 },
    Attribute { name: "ST", oid: &[2, 5, 4, 8], encoding: Encoding::Utf8, most: 128 },
    Attribute { name: "C", oid: &[2, 5, 4, 6], encoding: Encoding::Printable, most: 2 },
    Attribute { name: "SERIALNUMBER", oid: &[2, 5, 4, 5], encoding: Encoding::Printable, most: 64 },
];

/// The template of a Subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTemplate {
    // As it was configured.
    text: String,
    // In the order of RFC 4514, where the most specific comes first.
    attributes: Vec<(&'static Attribute, Template)>,
}

/// A Subject. Its attributes are in the order of a certificate: the least specific first, each in a set of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName {
    attributes: Vec<(&'static Attribute, String)>,
}

impl DistinguishedName {
    /// Types and values.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static Attribute, &str)> {
        self.attributes.iter().map(|(attribute, value)| (*attribute, value.as_str()))
    }

    /// A name of any attributes and values, unchecked.
    #[cfg(test)]
    pub(crate) fn of(attributes: &[(&str, &str)]) -> DistinguishedName {
        let known = |name: &str| KNOWN.iter().find(|known| known.name == name);
        let attributes = attributes.iter().filter_map(|(name, value)| Some((known(name)?, (*value).to_owned())));
        DistinguishedName { attributes: attributes.collect() }
    }
}

impl SubjectTemplate {
    /// Reads a template in the form of RFC 4514, such as `CN={user.sub},OU={class}`. A comma ends a value; `\,` is one in a value.
    pub fn parse(text: &str) -> Result<SubjectTemplate, String> {
        let mut attributes = Vec::new();
        let mut rest = text.trim();
        loop {
            let (name, after) = rest.split_once('=').ok_or("write attributes and values, such as `CN={agent},OU={class}`")?;
            let name = name.trim();
            let attribute = KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                let all: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                format!("`{name}` is no attribute that can be set: write one of {}", all.join(", "))
            })?;
            let (value, next) = value(after)?;
            check_template(attribute, &value)?;
            attributes.push((attribute, value));
            match next {
                Some(next) => rest = next,
                None => break,
            }
        }
        if attributes.len() > ATTRIBUTES {
            return Err(format!("a subject has at most {ATTRIBUTES} attributes"));
        }
        Ok(SubjectTemplate { text: text.to_owned(), attributes })
    }

    /// The template as it was configured.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it asks for the user, so that it can be used for delegated agents alone.
    pub fn names_user(&self) -> bool {
        self.attributes.iter().any(|(_, value)| value.names_user())
    }

    /// The Subject of an agent. Special characters in a value never add an attribute. The error names the limit that a value
    /// exceeds.
    fn fill(&self, facts: &Facts<'_>) -> Result<DistinguishedName, String> {
        let mut attributes = Vec::new();
        let mut bytes = 0;
        for (attribute, template) in self.attributes.iter().rev() {
            let value = template.fill(facts).map_err(|e| e.to_string())?;
            check_value(attribute, &value)?;
            bytes += value.len();
            attributes.push((*attribute, value));
        }
        if bytes > BYTES {
            return Err(format!("its values have {bytes} bytes, and {BYTES} are allowed"));
        }
        Ok(DistinguishedName { attributes })
    }
}

impl Judgement<'_> {
    /// The Subject of an agent's certificate, by the present configuration of its class. `None` means that it is empty. A Subject
    /// that is too large is denied, so this is called before anything is recorded.
    pub fn subject(&self, agent: &Agent) -> Result<Option<DistinguishedName>, Denial> {
        let Some(template) = self.rules().classes.get(&agent.mandate.class).and_then(|class| class.subject.as_ref()) else {
            return Ok(None);
        };
        self.checking(Check::Subject);
        template.fill(&self.facts(agent)).map(Some).map_err(|what| {
            let message = format!("the subject `{}` of class `{}` does not fit: {what}", template.text, agent.mandate.class);
            Denial::denied("SUBJECT_UNUSABLE", message)
        })
    }
}

/// Reads one value, and what follows the comma after it.
fn value(text: &str) -> Result<(Template, Option<&str>), String> {
    let mut template = Template::default();
    let mut literal = Vec::new();
    let mut rest = text.trim_start();
    let mut spaces = 0;
    let flush = |template: &mut Template, literal: &mut Vec<u8>| {
        let text = std::str::from_utf8(literal).map_err(|_| "its escaped bytes are not UTF-8".to_owned())?;
        template.push_text(text);
        literal.clear();
        Ok::<_, String>(())
    };
    let mut first = true;
    let next = loop {
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { break None };
        rest = chars.as_str();
        if !matches!(c, ' ' | ',') {
            // Trailing white space is not part of the value.
            literal.extend(std::iter::repeat_n(b' ', spaces));
            spaces = 0;
        }
        match c {
            ' ' => spaces += 1,
            ',' => break Some(rest),
            '\\' => rest = escaped(rest, &mut literal)?,
            '{' => {
                let (name, after) = rest.split_once('}').ok_or("a brace is part of a variable, such as `{agent}`")?;
                flush(&mut template, &mut literal)?;
                template.push(Part::Variable(Variable::read(name)?));
                rest = after;
            }
            '}' => return Err("a brace is part of a variable, such as `{agent}`".into()),
            '+' => return Err("an attribute stands alone: separate them with `,`, and write `\\+` for the character".into()),
            '"' | '<' | '>' | ';' | '\0' => return Err(format!("write `\\{c}` for `{c}` (RFC 4514)")),
            '#' if first => return Err("write `\\#` for `#` at the beginning of a value (RFC 4514)".into()),
            c => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        first = false;
    };
    flush(&mut template, &mut literal)?;
    Ok((template, next))
}

/// Reads what follows a backslash: one special character, or a byte as two hexadecimal digits. Returns the text after it.
fn escaped<'a>(rest: &'a str, literal: &mut Vec<u8>) -> Result<&'a str, String> {
    let wrong = || "a backslash stands before a special character or two hexadecimal digits (RFC 4514)".to_owned();
    let c = rest.chars().next().ok_or_else(wrong)?;
    if r##" "#+,;<=>\"##.contains(c) {
        literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        return rest.get(c.len_utf8()..).ok_or_else(wrong);
    }
    let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
    literal.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')).ok_or_else(wrong)?);
    Ok(after)
}

/// Checks the parts of a template that do not depend on its variables.
fn check_template(attribute: &Attribute, template: &Template) -> Result<(), String> {
    let Attribute { name, most, .. } = attribute;
    let country = |value: &str| value.len() == 2 && value.bytes().all(|b| b.is_ascii_uppercase());
    match template.fixed() {
        Some(value) if *name == "C" && !country(value) => Err("`C` is a country code of two capital letters".into()),
        None if *name == "C" => Err("`C` is a country code, and no variable is one".into()),
        Some(value) => check_value(attribute, value),
        None if template.least() > *most => Err(format!("{name} has more than {most} characters")),
        None => Ok(()),
    }
}

fn check_value(attribute: &Attribute, value: &str) -> Result<(), String> {
    let Attribute { name, most, encoding, .. } = attribute;
    check_name(value).map_err(|what| format!("{name} {what}"))?;
    let length = value.chars().count();
    if length > *most {
        return Err(format!("{name} has {length} characters, and {most} are allowed"));
    }
    let printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
    let allowed = match encoding {
        Encoding::Utf8 => true,
        Encoding::Printable => value.chars().all(printable),
        // RFC 4519 2.4: one label of a DNS name.
        Encoding::Ia5 => value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
    };
    if allowed { Ok(()) } else { Err(format!("{name} has characters that this attribute cannot hold")) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fixed(text: &str) -> Vec<(&'static str, String)> {
        let read = SubjectTemplate::parse(text).unwrap();
        read.attributes.iter().map(|(a, v)| (a.name, v.fixed().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_template_is_read_as_rfc_4514_writes_names() {
        let of = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(a, v)| (*a, (*v).to_owned())).collect::<Vec<_>>();
        assert_eq!(fixed("CN=a"), of(&[("CN", "a")]));
        assert_eq!(fixed(" cn = a b , ou=x"), of(&[("CN", "a b"), ("OU", "x")]));
        assert_eq!(fixed(r"O=Sue\, Grabbit and Runn,C=GB"), of(&[("O", "Sue, Grabbit and Runn"), ("C", "GB")]));
        assert_eq!(fixed(r"CN=Lu\C4\8Di\C4\87"), of(&[("CN", "Lučić")]));
        assert_eq!(fixed(r"CN=\#a\+b\=c=d"), of(&[("CN", "#a+b=c=d")]));
        let template = SubjectTemplate::parse("CN={user.sub},OU=class:{class}").unwrap();
        assert!(template.names_user() && template.attributes.len() == 2);
    }

    #[test]
    fn a_malformed_template_is_refused_with_what_to_write() {
        let long = format!("CN={}", "x".repeat(65));
        for (text, part) in [
            ("", "attributes and values"),
            ("CN", "attributes and values"),
            ("CN=a,", "attributes and values"),
            ("EMAIL=a", "`EMAIL` is no attribute"),
            ("CN=", "is empty"),
            ("CN=a+OU=b", "`\\+`"),
            ("CN=#a", "`\\#`"),
            ("CN=a;b", "`\\;`"),
            (r"CN=a\x", "a backslash"),
            (r"CN=a\", "a backslash"),
            (r"CN=\+1", ""),
            (r"CN=a\FF", "not UTF-8"),
            ("CN={user}", "no variable"),
            ("CN={agent", "a brace"),
            ("CN=agent}", "a brace"),
            ("CN=a\nb", "control characters"),
            (&long, "65 characters, and 64"),
            ("C=Germany", "country code"),
            ("C={class}", "country code"),
            ("DC=a.b", "cannot hold"),
            ("SERIALNUMBER=a_b", "cannot hold"),
            ("CN=a,CN=b,CN=c,CN=d,CN=e,CN=f,CN=g,CN=h,CN=i", "at most 8"),
        ] {
            match SubjectTemplate::parse(text) {
                Ok(_) => assert!(part.is_empty(), "{text}"),
                Err(fault) => assert!(!part.is_empty() && fault.contains(part), "{text}: {fault}"),
            }
        }
    }

    #[test]
    fn t117_what_a_variable_stands_for_is_never_a_second_attribute() {
        let cn = KNOWN.iter().find(|known| known.name == "CN").unwrap();
        for inside in ["a,OU=admin", "a+OU=admin", r"a\,OU=admin", "a\"", "{user.sub}", "a=b", "#04024869"] {
            assert_eq!(check_value(cn, inside), Ok(()), "{inside}: it is one value");
        }
        for refused in ["", " a", "a\0", "a\nOU=admin", &"é".repeat(65)] {
            assert!(check_value(cn, refused).is_err(), "{refused:?}");
        }
        assert_eq!(check_value(cn, &"é".repeat(64)), Ok(()), "characters are counted, and not bytes");
    }
}
