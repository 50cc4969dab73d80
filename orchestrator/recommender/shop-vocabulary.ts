/** Words of the simulated shop: invented brands, and departments with their item types. Order is part of the shop's identity. */
export interface Department {
  name: string;
  /** Item types; a shopper tends to go from one to the next ones of the list. */
  types: readonly string[];
  /** What items are for; goes into the description. */
  uses: readonly string[];
}

export const DEPARTMENTS: readonly Department[] = [
  {
    name: 'Camping',
    types: ['tent', 'sleeping bag', 'camp stove', 'cook set', 'headlamp'],
    uses: ['weekend trips', 'high passes', 'family campsites'],
  },
  {
    name: 'Kitchen',
    types: ['chef knife', 'cutting board', 'frying pan', 'saucepan', 'spice rack'],
    uses: ['weeknight dinners', 'slow stews', 'small kitchens'],
  },
  {
    name: 'Coffee',
    types: ['coffee grinder', 'espresso machine', 'milk frother', 'coffee beans', 'travel mug'],
    uses: ['early mornings', 'latte art', 'the office'],
  },
  {
    name: 'Garden',
    types: ['raised bed', 'seed kit', 'watering can', 'pruning shears', 'compost bin'],
    uses: ['balcony pots', 'vegetable rows', 'rose borders'],
  },
  {
    name: 'Cycling',
    types: ['helmet', 'bike light', 'cycling gloves', 'pannier bag', 'repair kit'],
    uses: ['daily commutes', 'gravel roads', 'long tours'],
  },
  {
    name: 'Painting',
    types: ['easel', 'canvas', 'acrylic paint', 'brush set', 'varnish'],
    uses: ['landscapes', 'portraits', 'first lessons'],
  },
  {
    name: 'Music',
    types: ['guitar', 'guitar strings', 'capo', 'tuner', 'guitar stand'],
    uses: ['beginners', 'stage shows', 'home recording'],
  },
  {
    name: 'Workshop',
    types: ['cordless drill', 'drill bits', 'work bench', 'clamp set', 'safety glasses'],
    uses: ['shelf building', 'renovation', 'fine joinery'],
  },
];

export const BRANDS: readonly string[] = [
  'Alderfen',
  'Brightmoor',
  'Calvenna',
  'Dunwick',
  'Estrellic',
  'Farrowgate',
  'Grennholm',
  'Hollowbrook',
  'Isenrath',
  'Jorvanne',
  'Kestrelby',
  'Lumenfold',
  'Marrowdale',
  'Nordhaven',
  'Oakspire',
  'Pellwater',
];

export const STYLES: readonly string[] = ['ultralight', 'classic', 'rugged', 'compact', 'premium', 'eco'];

export const COLOURS: readonly string[] = [
  'slate',
  'amber',
  'forest',
  'ivory',
  'crimson',
  'navy',
  'sand',
  'teal',
  'plum',
  'copper',
  'olive',
  'charcoal',
];
