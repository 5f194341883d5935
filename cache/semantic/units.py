"""Numbers in words, and units. Data, no decisions."""

from cache.semantic.wordlists import read_table, read_words

CARDINALS = {
    word: value
    for value, word in enumerate(
        read_words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
    """)
    )
} | {
    word: 10 * value
    for value, word in enumerate(read_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
MULTIPLIERS = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
WORD_NUMBERS = {"dozen": "12", "half": "0.5", "twice": "2", "double": "2", "triple": "3"}
ORDINALS = {
    word: str(value)
    for value, word in enumerate(
        read_words("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
    """),
        1,
    )
}

UNITS = read_table("""
kilometre: km kms kilometer kilometers kilometres
metre: meter meters metres
centimetre: cm cms centimeter centimeters centimetres
millimetre: mm millimeter millimeters millimetres
mile: mi miles
yard: yd yds yards
foot: ft feet
inch: inches
kilogram: kg kgs kilo kilos kilograms kilogramme kilogrammes
gram: grams gramme grammes
milligram: mg milligrams
tonne: tonnes
ton: tons
pound: pounds
pound-mass: lb lbs
ounce: oz ounces
stone: stones
litre: liter liters litres
millilitre: ml milliliter milliliters millilitres
gallon: gal gallons
pint: pints
quart: quarts
cup: cups
tablespoon: tbsp tablespoons
teaspoon: tsp teaspoons
celsius: centigrade °c ℃
fahrenheit: °f ℉
kelvin: kelvins
millisecond: ms milliseconds
second: sec secs seconds
minute: min mins minutes
hour: hr hrs hours
day: days
week: weeks
month: months
year: yr yrs years
byte: bytes
kilobyte: kb kilobytes
megabyte: mb megabytes
gigabyte: gb gigabytes
terabyte: tb terabytes
megabit: mbit megabits
gigabit: gbit gigabits
megabit-per-second: mbps
gigabit-per-second: gbps
mile-per-hour: mph
kilometre-per-hour: kmh kph
watt: watts
kilowatt: kw kilowatts
joule: joules
calorie: cal calories
kilocalorie: kcal
volt: volts
percent: % percentage pct
dollar: $ usd dollars bucks
euro: € eur euros
pound-sterling: £ gbp
yen: ¥ jpy
acre: acres
hectare: ha hectares
hertz: hz
kilohertz: khz
megahertz: mhz
gigahertz: ghz
""")
# Too short to be a unit unless they stand at a number, or where a conversion names its target.
SHORT_UNITS = {
    "m": "metre",
    "g": "gram",
    "l": "litre",
    "c": "celsius",
    "f": "fahrenheit",
    "s": "second",
    "h": "hour",
    "t": "tonne",
    "in": "inch",
    "b": "byte",
    "v": "volt",
    "w": "watt",
    "am": "am",
    "pm": "pm",
}
# Where the case of a letter is the difference.
CASED_UNITS = {
    "Mg": "tonne",
    "mg": "milligram",
    "Mb": "megabit",
    "Gb": "gigabit",
    "Kb": "kilobit",
    "kb": "kilobyte",
    "K": "kelvin",
} | {
    prefix + sign: name + unit
    for prefix, name in (("m", "milli"), ("M", "mega"))
    for sign, unit in (
        ("W", "watt"),
        ("Wh", "watt-hour"),
        ("V", "volt"),
        ("Hz", "hertz"),
        ("J", "joule"),
        ("Pa", "pascal"),
    )
}
MAGNITUDES = {"k": 10**3, "m": 10**6, "bn": 10**9}
