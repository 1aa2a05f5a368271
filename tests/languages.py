"""Intents and titles in twelve languages and in emoji."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """What shops in one language write.

    Args:
        intents: Distinct ones; the first is of the camera titles, the second of the coffee titles.
        camera: Titles with a word in common.
        coffee: Titles with a word in common.
        shared: The words of which each camera title has one.
        latin: Whether it is written in Latin letters.
    """

    intents: tuple[str, ...]
    camera: tuple[str, ...]
    coffee: tuple[str, ...]
    shared: tuple[str, ...]
    latin: bool = False


LANGUAGES = {
    "chinese": Language(
        ("相机配件", "咖啡冲泡", "露营装备", "婴儿用品", "办公文具", "瑜伽"),
        ("佳能EOS200D单反相机", "相机包 黑色", "相机三脚架"),
        ("手冲咖啡壶", "咖啡滤纸100张"),
        ("相机",),
    ),
    "japanese": Language(
        ("カメラ用品", "コーヒーを淹れる", "キャンプ道具", "ベビー用品", "文房具", "ヨガ"),
        ("キヤノン一眼レフカメラ", "カメラバッグ 黒", "カメラ三脚"),
        ("コーヒーメーカー", "コーヒーフィルター100枚"),
        ("カメラ",),
    ),
    "korean": Language(
        ("카메라 액세서리", "커피 내리기", "캠핑 장비", "아기 용품", "사무용품", "요가"),
        ("캐논 카메라 EOS", "카메라 가방 블랙", "카메라삼각대"),
        ("커피 드리퍼", "커피 필터 100매"),
        ("카메라",),
    ),
    "arabic": Language(
        (
            "ملحقات الكاميرا",
            "تحضير القهوة",
            "معدات التخييم",
            "مستلزمات الأطفال",
            "أدوات مكتبية",
            "يوغا",
        ),
        ("كاميرا كانون رقمية", "حقيبة كاميرا سوداء", "حامل كاميرا ثلاثي"),
        ("ماكينة قهوة", "فلتر قهوة 100 قطعة"),
        ("كاميرا",),
    ),
    "hebrew": Language(
        ("אביזרי מצלמה", "הכנת קפה", "ציוד קמפינג", "מוצרי תינוקות", "ציוד משרדי", "יוגה"),
        ("מצלמה קנון", "תיק מצלמה שחור", "חצובה למצלמה"),
        ("מכונת קפה", "פילטר קפה 100 יח"),
        ("מצלמה",),
    ),
    "hindi": Language(
        (
            "कैमरा सामान",
            "कॉफी बनाना",
            "कैंपिंग का सामान",
            "शिशु उत्पाद",
            "कार्यालय सामग्री",
            "योग",
        ),
        ("कैनन डिजिटल कैमरा", "कैमरा बैग काला", "कैमरा ट्राइपॉड"),
        ("कॉफी मेकर", "कॉफी फिल्टर 100"),
        ("कैमरा",),
    ),
    "thai": Language(
        (
            "อุปกรณ์กล้อง",
            "ชงกาแฟ",
            "อุปกรณ์ตั้งแคมป์",
            "ของใช้เด็กอ่อน",
            "เครื่องเขียน",
            "โยคะ",
        ),
        ("กล้องดิจิตอล Canon", "กระเป๋ากล้อง สีดำ", "ขาตั้งกล้อง"),
        ("เครื่องชงกาแฟ", "กระดาษกรองกาแฟ 100 แผ่น"),
        ("กล้อง",),
    ),
    "russian": Language(
        (
            "аксессуары для камеры",
            "заваривание кофе",
            "снаряжение для похода",
            "товары для малыша",
            "канцелярия",
            "йога",
        ),
        ("Камера Canon цифровая", "Сумка для камеры чёрная", "Штатив для камеры"),
        ("Кофе молотый 250 г", "Фильтры для кофе 100 шт"),
        ("камера", "камеры"),
    ),
    "greek": Language(
        (
            "αξεσουάρ κάμερας",
            "παρασκευή καφέ",
            "εξοπλισμός κατασκήνωσης",
            "βρεφικά είδη",
            "είδη γραφείου",
            "γιόγκα",
        ),
        ("Κάμερα Canon ψηφιακή", "Θήκη κάμερας μαύρη", "Τρίποδο κάμερας"),
        ("Καφές αλεσμένος", "Φίλτρα καφέ 100 τεμ"),
        ("κάμερα", "κάμερας"),
    ),
    "polish": Language(
        (
            "akcesoria do aparatu",
            "parzenie kawy",
            "sprzęt kempingowy",
            "artykuły dla niemowląt",
            "przybory biurowe",
            "joga",
        ),
        ("Aparat cyfrowy Canon", "Torba na aparat czarna", "Statyw do aparatu"),
        ("Ekspres do kawy", "Filtry do kawy 100 szt"),
        ("aparat", "aparatu"),
        latin=True,
    ),
    "czech": Language(
        (
            "příslušenství k fotoaparátu",
            "příprava kávy",
            "vybavení na kempování",
            "dětské potřeby",
            "kancelářské potřeby",
            "jóga",
        ),
        ("Fotoaparát Canon", "Brašna na fotoaparát černá", "Stativ na fotoaparát"),
        ("Kávovar na kávu", "Filtry na kávu 100 ks"),
        ("fotoaparát",),
        latin=True,
    ),
    "german": Language(
        (
            "Kamerazubehör",
            "Kaffee kochen",
            "Campingausrüstung",
            "Babyausstattung",
            "Bürobedarf",
            "Yoga",
        ),
        ("Canon Kamera digital", "Tasche für Kamera schwarz", "Kamera Stativ"),
        ("Kaffee gemahlen 500 g", "Filter für Kaffee 100 Stück"),
        ("kamera",),
        latin=True,
    ),
    "turkish": Language(
        (
            "kamera aksesuarları",
            "kahve demleme",
            "kamp malzemeleri",
            "bebek ürünleri",
            "ofis gereçleri",
            "yoga ışığı",
        ),
        ("Canon dijital kamera", "İpek kamera çantası siyah", "Kamera tripodu"),
        ("Türk kahve makinesi", "Kahve filtresi 100 adet"),
        ("kamera",),
        latin=True,
    ),
    "emoji": Language(
        ("📷 🎒", "☕ 🫖", "⛺ 🔥", "👶 🍼", "📎 📏", "🧘"),
        ("📷 🔋", "📷 🎒", "📷 🗼"),
        ("☕ 🫖", "☕ 🥛"),
        ("📷",),
    ),
}
"""Language by name."""
