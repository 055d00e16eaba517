"""The words that the speech decoder practises: the miniature's own, and enough others to cover English sounds.

Each list is a string of words, one grammatical role a list, so that :mod:`.sentences` can put them together.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(",") if phrase.strip())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, _, right in (phrase.partition(":") for phrase in _phrases(text)))


ONES = _words("zero one two three four five six seven eight nine")
TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth last next"
)
COLOURS = _words(
    "red green blue yellow orange purple pink brown black white grey gray violet turquoise gold silver cyan magenta "
    "beige crimson navy teal lime indigo"
)
SHAPES = _words(
    "circle square triangle rectangle star cross heart diamond ring line dot oval cube ball arrow pentagon hexagon "
    "cone circles squares triangles rectangles stars crosses hearts diamonds rings lines dots ovals shapes digits "
    "pictures"
)
POSITIONS = _phrases(
    "on the left, on the right, at the top, at the bottom, in the middle, in the centre, in the center, above, "
    "below, in the corner, to the left, to the right, near the top, near the bottom, upper left, lower right, upper "
    "right, lower left"
)
MOVES = _phrases(
    "to the left, to the right, up, down, upward, downward, upwards, downwards, away, forward, backward, closer, "
    "sideways, around, from left to right, from right to left, from top to bottom, from bottom to top"
)
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday")
MONTHS = _words("january february march april may june july august september october november december")
SEASONS = _words("spring summer autumn winter fall")
UNITS = _words(
    "second seconds minute minutes hour hours day days week weeks month months year years meter meters metre metres "
    "kilometer kilometers kilometre kilometres centimeter centimeters millimeters gram grams kilogram kilograms "
    "liter liters litre litres milliliters degree degrees inch inches foot feet mile miles pound pounds ounce "
    "ounces ton tons dozen percent century centuries decade decades cents dollars euros bytes cup cups"
)
DEVICES = _words(
    "light lights lamp lamps fan heater heating radio television door window curtain curtains blind blinds oven "
    "stove kettle music speaker speakers camera alarm thermostat dishwasher fridge washer dryer vacuum printer "
    "projector computer laptop phone screen garage gate sprinkler toaster humidifier tv air-conditioner volume "
    "clock lock locks plug switch"
)
ROOMS = _words(
    "kitchen bedroom bathroom hall hallway office garage garden basement attic balcony nursery study cellar "
    "corridor porch library workshop playroom pantry lounge"
)
ROOM_PHRASES = _phrases(
    "living room, dining room, guest room, laundry room, front door, back door, kids room, home office"
)
COUNTRIES_CAPITALS = _pairs(
    "france:paris, italy:rome, spain:madrid, germany:berlin, portugal:lisbon, england:london, britain:london, the "
    "united kingdom:london, ireland:dublin, scotland:edinburgh, wales:cardiff, austria:vienna, belgium:brussels, "
    "the netherlands:amsterdam, holland:amsterdam, switzerland:bern, denmark:copenhagen, norway:oslo, "
    "sweden:stockholm, finland:helsinki, iceland:reykjavik, poland:warsaw, czechia:prague, the czech "
    "republic:prague, slovakia:bratislava, hungary:budapest, romania:bucharest, bulgaria:sofia, greece:athens, "
    "turkey:ankara, russia:moscow, ukraine:kyiv, belarus:minsk, serbia:belgrade, croatia:zagreb, "
    "slovenia:ljubljana, bosnia:sarajevo, albania:tirana, estonia:tallinn, latvia:riga, lithuania:vilnius, "
    "malta:valletta, cyprus:nicosia, luxembourg:luxembourg, monaco:monaco, egypt:cairo, morocco:rabat, "
    "algeria:algiers, tunisia:tunis, libya:tripoli, kenya:nairobi, nigeria:abuja, ghana:accra, ethiopia:addis "
    "ababa, senegal:dakar, uganda:kampala, zambia:lusaka, zimbabwe:harare, angola:luanda, south africa:pretoria, "
    "madagascar:antananarivo, rwanda:kigali, tanzania:dodoma, sudan:khartoum, somalia:mogadishu, china:beijing, "
    "japan:tokyo, india:new delhi, korea:seoul, south korea:seoul, north korea:pyongyang, thailand:bangkok, "
    "vietnam:hanoi, laos:vientiane, cambodia:phnom penh, malaysia:kuala lumpur, indonesia:jakarta, "
    "singapore:singapore, the philippines:manila, nepal:kathmandu, pakistan:islamabad, bangladesh:dhaka, sri "
    "lanka:colombo, mongolia:ulaanbaatar, iran:tehran, iraq:baghdad, israel:jerusalem, jordan:amman, "
    "lebanon:beirut, syria:damascus, qatar:doha, kuwait:kuwait city, saudi arabia:riyadh, yemen:sanaa, oman:muscat, "
    "afghanistan:kabul, kazakhstan:astana, uzbekistan:tashkent, georgia:tbilisi, armenia:yerevan, azerbaijan:baku, "
    "australia:canberra, new zealand:wellington, fiji:suva, canada:ottawa, the united states:washington, "
    "america:washington, mexico:mexico city, cuba:havana, jamaica:kingston, haiti:port au prince, panama:panama "
    "city, costa rica:san jose, guatemala:guatemala city, honduras:tegucigalpa, nicaragua:managua, brazil:brasilia, "
    "argentina:buenos aires, chile:santiago, peru:lima, bolivia:la paz, colombia:bogota, venezuela:caracas, "
    "ecuador:quito, paraguay:asuncion, uruguay:montevideo"
)
OPPOSITES = _pairs(
    "hot:cold, big:small, large:little, tall:short, high:low, up:down, in:out, open:closed, open:shut, on:off, "
    "left:right, good:bad, happy:sad, fast:slow, quick:slow, early:late, old:new, old:young, wet:dry, hard:soft, "
    "heavy:light, dark:bright, dark:light, day:night, black:white, near:far, long:short, wide:narrow, thick:thin, "
    "thin:fat, full:empty, rich:poor, strong:weak, clean:dirty, loud:quiet, first:last, begin:end, start:stop, "
    "start:finish, come:go, buy:sell, give:take, push:pull, win:lose, love:hate, true:false, right:wrong, yes:no, "
    "always:never, more:less, many:few, all:none, above:below, over:under, inside:outside, before:after, "
    "front:back, top:bottom, north:south, east:west, warm:cool, sweet:sour, sharp:blunt, rough:smooth, "
    "deep:shallow, easy:difficult, simple:complex, cheap:expensive, safe:dangerous, brave:afraid, awake:asleep, "
    "alive:dead, male:female, friend:enemy, question:answer, ask:answer, rise:fall, remember:forget, laugh:cry, "
    "arrive:leave, enter:exit, accept:refuse, add:subtract, ancient:modern, forward:backward, tight:loose, "
    "polite:rude, calm:angry, tired:fresh, healthy:sick, public:private, summer:winter, sunrise:sunset, "
    "teach:learn, lend:borrow, find:lose, float:sink, raise:lower, increase:decrease, same:different, "
    "clever:stupid, noisy:silent, wise:foolish, lazy:busy, equal:unequal, possible:impossible, visible:invisible, "
    "inner:outer, major:minor, morning:evening, beautiful:ugly, attack:defend, build:destroy, save:spend, "
    "victory:defeat, peace:war, king:queen, even:odd, plus:minus, maximum:minimum, positive:negative, "
    "straight:crooked, solid:liquid, single:double"
)
NAMES = _words(
    "anna ben carla david emma frank grace henry irene jack kate leo maria nick olivia peter quentin rose sam tina "
    "victor wendy xavier yvonne zoe alice bob charlie daisy edward fiona george hannah isaac julia kevin laura "
    "michael nora oscar paul rachel simon thomas ursula vincent walter mary john james linda robert susan joe lucy "
    "max sarah vita"
)
NOUNS = _words(
    "apple arm artist aunt baby back bag bank basket bath beach bean bear bed bee bell bench berry bicycle bike "
    "bird biscuit blanket board boat body bone book boot bottle bowl box boy branch bread breakfast brick bridge "
    "brother brush bucket bus bush butter butterfly button cage cake camel camp candle cap car card carpet carrot "
    "castle cat chain chair chalk cheese cherry chicken child chocolate church city class cloud coat coffee coin "
    "cook corn cotton country cousin cow crab cream crow crown cup daughter desk dinner doctor dog doll dolphin "
    "donkey dragon drawer dream dress driver drum duck dust eagle ear earth egg elephant engine evening eye face "
    "factory family farm farmer father feather fence field finger fire fish flag flame floor flower fly fog food "
    "forest fork fox friend frog fruit game garden garlic ghost giraffe girl glass glove goat goose grandmother "
    "grape grass guitar hair hammer hand hat head hill history hole honey hook horse hospital hotel house ice idea "
    "insect island jacket jam jar jewel job joke journey juice jungle key kid king kite kitten knee knife ladder "
    "lady lake lamb language leaf lemon lesson letter lion lip lizard lunch machine man map market match meal meat "
    "medicine melon message milk mirror money monkey moon morning mother mountain mouse mouth movie museum mushroom "
    "nail neck needle neighbour nephew nest net news newspaper night noise nose note notebook number nurse nut "
    "ocean oil onion page paint paper parent park parrot party path peach pear pen pencil people pepper piano "
    "picture pie pig pillow pilot pizza place plane planet plant plate pocket poem police pool potato present "
    "prince problem puppy purse puzzle queen question rabbit rain rainbow rat reason recipe restaurant rice river "
    "road robot rock roof room root rope sail salad salt sand sandwich school science scissors sea seat seed shadow "
    "shark sheep shelf shell ship shirt shoe shop shoulder shower sister skin skirt sky sleep smile smoke snail "
    "snake snow soap sock sofa soldier son song soup space spider spoon sport stamp station stick stomach stone "
    "storm story stranger strawberry street student sugar suit sun sweater table tail taxi tea teacher team "
    "telephone tent test thing thumb thunder ticket tiger toe tomato tongue tooth town toy tractor train travel "
    "tree trip trouble trousers truck turtle umbrella uncle university valley van vegetable village violin visit "
    "voice wall wallet war water wave weather wedding wheel whistle wife wind wine wing wolf woman wood wool word "
    "work world worm writer yard zebra zoo weekend vacation holiday kitchen measure treasure pleasure vision garage "
    "azure yacht yolk youth thigh thief throat bath cloth breath earthquake feather leather thousand hundred "
    "million question"
)
ADJECTIVES = _words(
    "big small little long short tall high low hot cold warm cool wet dry new old young good bad nice kind happy "
    "sad angry tired hungry thirsty clean dirty bright dark loud quiet fast slow quick early late heavy soft hard "
    "sweet sour bitter fresh strange funny serious lucky careful beautiful ugly pretty lovely gentle brave clever "
    "smart lazy busy free full empty rich poor strong weak round flat sharp smooth rough thick thin wide narrow "
    "deep shallow simple easy difficult cheap expensive safe dangerous famous favourite important different same "
    "special usual whole broken wooden golden huge tiny giant yellow shiny fuzzy foggy sunny rainy cloudy windy "
    "snowy stormy modern ancient perfect terrible wonderful delicious healthy sick sleepy noisy silent polite rude "
    "ready other own real wild"
)
VERBS = _words(
    "see hear find take bring carry hold push pull open close wash cook eat drink buy sell make build break fix "
    "paint draw read write watch like love want need know remember forget understand teach learn show give send "
    "keep lose choose use try start stop finish follow catch throw kick touch smell taste feel hide count measure "
    "cut clean fill move change turn help call ask answer thank visit meet join leave enjoy imagine describe "
    "explain repeat press check play sing study cover share save borrow lend"
)
PAST_VERBS = _words(
    "saw heard found took brought carried held pushed pulled opened closed washed cooked ate drank bought sold made "
    "built broke fixed painted drew read wrote watched liked loved wanted needed knew remembered forgot understood "
    "taught learned showed gave sent kept lost chose used tried started stopped finished followed caught threw "
    "kicked touched smelled tasted felt hid counted measured cut cleaned filled moved changed turned helped called "
    "asked answered thanked visited met joined left enjoyed checked played"
)
INTRANSITIVE = _words(
    "runs walks swims sleeps sings dances jumps falls grows shines works plays waits smiles laughs cries flies sits "
    "stands rests moves stops arrives returns speaks listens thinks travels rises breathes whispers shouts leaves "
    "lives dreams"
)
ADVERBS = _words(
    "quickly slowly quietly loudly carefully happily sadly again always never often sometimes usually soon now "
    "later here there everywhere together alone early late well badly almost already maybe probably really very "
    "today tonight tomorrow outside inside upstairs downstairs immediately suddenly finally gently easily yet twice "
    "once"
)
PREPOSITIONS = _phrases(
    "in, on, under, behind, beside, near, above, below, inside, outside, over, between, around, next to, in front "
    "of, across, through, against, without, with, for, from, to, toward, past, along"
)
FIXED = _phrases(
    "yes, no, okay, sure, of course, thank you, you are welcome, please, sorry, hello, hi there, hey, good morning, "
    "good afternoon, good evening, good night, goodbye, see you later, see you soon, bye bye, have a nice day, how "
    "are you, i am fine, i am well, i am doing well, nice to meet you, my name is vita, i am vita, what is your "
    "name, i do not know, i did not understand, i cannot hear you, could you repeat that, say that again, i can "
    "help with that, how can i help you, what can i do for you, i can add numbers, i can see pictures, i can hear "
    "you, i can speak, tell me a joke, why not, never mind, no problem, that is right, that is wrong, i am sorry, i "
    "am not sure, let me think, one moment, it is done, all done, done, it is ready, the timer is done, the timer "
    "is set, the alarm is set, timer cancelled, cancel the timer, stop the music, pause, go on, wait, be quiet, "
    "speak louder, listen, look at this, look there, there is nothing, nothing moves, nothing changed, it is empty, "
    "i see nothing, i see a picture, the picture is empty, i am a small assistant, i was made to help, i live in "
    "this computer, i like talking with you, i am happy to help, congratulations, happy birthday, well done, good "
    "job, good luck, sleep well, i was trained on two cores, you too, my pleasure, any time, great, fine, perfect, "
    "excellent, wonderful, awesome, correct, exactly, absolutely, certainly, indeed, perhaps, both, neither, none, "
    "everything is fine, everything is off, everything is on, i am a robot, i do not eat, i never sleep, a robot "
    "never tells, that is funny, ask me something, ask me again, try again, it got bigger, it got smaller, it grew, "
    "it shrank, it appeared, it disappeared, it turned, it stayed the same, it changed colour, it changed its "
    "colour, it changed shape, it moved, it does not move, it stands still"
)
