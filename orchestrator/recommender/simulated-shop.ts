/**
 * The simulated shop: a seeded world of items and shoppers whose taste, sessions, brands and titles hang together.
 *
 * The next event of a shopper either continues the session (probability `sessionContinues`) or opens a new one:
 * - continued: with `companionShare` one of the last item's companions, else an item of a type that follows the last item's type,
 *   where the last item's brand and style and the shopper's own favourites weigh more;
 * - new: a type of the shopper's departments, then an item of it by popularity and the shopper's favourites.
 * Nobody takes the same item twice.
 *
 * 1. FROZEN: the constants below were set once, from the oracle's and the baselines' numbers alone and before any model was
 *    trained; they are not tuned to please a model. A change makes a new shop and invalidates every published number.
 *    At the default size (34,779 events): HR@10 of the oracle 0.653, tuned co-occurrence 0.384, popularity 0.038.
 * 2. `nextEventProbabilities` is the very distribution that events are drawn from, so the oracle is exact: it knows the
 *    shopper's hidden taste and all constants, and does not know whether the session goes on.
 * 3. Everything is a function of the recipe: counter-based random numbers, portable exp and log, no locale.
 */
import { BadInputError } from './domain-job.js';
import { exp } from './portable-math.js';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { type SimulateRecipe } from './recipes.js';
import { BRANDS, COLOURS, DEPARTMENTS, STYLES } from './shop-vocabulary.js';

const SHOP = {
  brandsPerDepartment: 6,
  popularitySigma: 0.9,
  sessionContinues: 0.85,
  companionShare: 0.2,
  companionsPerItem: 3,
  companionWeights: [0.55, 0.3, 0.15],
  /** Weights of the following types: next in the department's list, the one after, the same again, one of another department. */
  followingTypeWeights: [0.6, 0.2, 0.1, 0.1],
  sameBrandAsLast: 1.2,
  sameStyleAsLast: 1.2,
  favouriteBrand: 2.2,
  favouriteStyle: 2.2,
  favouriteBrands: 2,
  /** A shopper's departments, favourite first; the rest is spread over all. */
  departmentWeights: [0.6, 0.3],
  departmentRest: 0.1,
  sessionPauseSecondsMin: 86_400,
  sessionPauseSecondsMax: 1_814_400,
  stepSecondsMin: 20,
  stepSecondsMax: 600,
} as const;

const START_SECONDS = 1_704_067_200;
const YEAR_SECONDS = 31_536_000;

export interface ShopItem {
  type: number;
  brand: number;
  style: number;
  colour: number;
  /** Popularity weight, around 1. */
  weight: number;
  companions: number[];
}

export interface Shopper {
  departments: number[];
  brands: ReadonlySet<number>;
  style: number;
}

export interface Shop {
  items: ShopItem[];
  /** Item indices of every type. */
  itemsOfType: number[][];
  /** For every type, four following types; parallel to `followingTypeWeights`. */
  followingTypes: number[][];
  shoppers: Shopper[];
}

export interface ShopEvent {
  user: number;
  item: number;
  /** Seconds. */
  time: number;
}

/** Every department lists this many types. */
const TYPES_PER_DEPARTMENT = 5;
const TYPES = DEPARTMENTS.flatMap((department, index) => department.types.map((name) => ({ department: index, name })));

export function buildShop(recipe: SimulateRecipe): Shop {
  checkRecipe(recipe);
  const random = new RandomSequence({ seed: recipe.seed, site: RANDOM_SITES.shopCatalogue, stream: 0 });
  const brandsOf = DEPARTMENTS.map(() => [...random.permutation(BRANDS.length)].slice(0, SHOP.brandsPerDepartment));
  const items: ShopItem[] = [];
  const itemsOfType: number[][] = TYPES.map(() => []);
  for (let index = 0; index < recipe.items; index += 1) {
    const type = index % TYPES.length;
    const brands = brandsOf[TYPES[type]?.department ?? 0] ?? [];
    itemsOfType[type]?.push(index);
    items.push({
      type,
      brand: brands[random.below(brands.length)] ?? 0,
      style: random.below(STYLES.length),
      colour: random.below(COLOURS.length),
      weight: random.logNormal(SHOP.popularitySigma),
      companions: [],
    });
  }
  const followingTypes = TYPES.map((_, type) => followersOf(type, random));
  const shop: Shop = { items, itemsOfType, followingTypes, shoppers: [] };
  items.forEach((item, index) => (item.companions = companionsOf(shop, index, random)));
  for (let user = 0; user < recipe.users; user += 1) shop.shoppers.push(shopperOf(recipe.seed, user, brandsOf));
  return shop;
}

/** Every shopper's events, in time order (ties by shopper). */
export function simulateEvents(shop: Shop, recipe: SimulateRecipe): ShopEvent[] {
  const events: ShopEvent[] = [];
  const probabilities = new NextEventProbabilities(shop);
  shop.shoppers.forEach((_, user) => events.push(...eventsOfShopper(probabilities, user, recipe)));
  return events.sort((a, b) => a.time - b.time || a.user - b.user);
}

/** The distribution of a shopper's next event, given its events so far; arrays are reused by the next call. */
export class NextEventProbabilities {
  private readonly continued: Float64Array;
  private readonly opened: Float64Array;

  constructor(private readonly shop: Shop) {
    this.continued = new Float64Array(shop.items.length);
    this.opened = new Float64Array(shop.items.length);
  }

  /** Given that the session goes on from `last`. Null when nothing unseen is left there. */
  whenContinued(user: number, last: number, seen: ReadonlySet<number>): Float64Array | null {
    const item = this.shop.items[last];
    if (item === undefined) throw new Error(`no item ${last}`);
    this.continued.fill(0);
    item.companions.forEach((companion, i) =>
      add(this.continued, companion, SHOP.companionShare * (SHOP.companionWeights[i] ?? 0)),
    );
    const following = this.shop.followingTypes[item.type] ?? [];
    following.forEach((type, i) => {
      const share = (1 - SHOP.companionShare) * (SHOP.followingTypeWeights[i] ?? 0);
      this.addType(this.continued, { user, type, share, last: item });
    });
    return normaliseUnseen(this.continued, seen);
  }

  whenOpened(user: number, seen: ReadonlySet<number>): Float64Array | null {
    const departments = this.shop.shoppers[user]?.departments ?? [];
    this.opened.fill(0);
    for (let type = 0; type < TYPES.length; type += 1) {
      const place = departments.indexOf(TYPES[type]?.department ?? -1);
      const perDepartment = SHOP.departmentRest / DEPARTMENTS.length + (SHOP.departmentWeights[place] ?? 0);
      this.addType(this.opened, { user, type, share: perDepartment / TYPES_PER_DEPARTMENT, last: null });
    }
    return normaliseUnseen(this.opened, seen);
  }

  /** What the oracle ranks by: the session goes on with its known probability. */
  overall(user: number, last: number, seen: ReadonlySet<number>): Float64Array {
    const continued = this.whenContinued(user, last, seen);
    const opened = this.whenOpened(user, seen);
    const mixed = new Float64Array(this.shop.items.length);
    const share = continued === null ? 0 : SHOP.sessionContinues;
    for (let i = 0; i < mixed.length; i += 1) {
      mixed[i] = share * (continued?.[i] ?? 0) + (1 - share) * (opened?.[i] ?? 0);
    }
    return mixed;
  }

  private addType(
    into: Float64Array,
    { user, type, share, last }: { user: number; type: number; share: number; last: ShopItem | null },
  ): void {
    const shopper = this.shop.shoppers[user];
    const members = this.shop.itemsOfType[type] ?? [];
    const weights = members.map((index) => {
      const item = this.shop.items[index];
      if (item === undefined || shopper === undefined) return 0;
      return item.weight * tasteFactor(item, shopper) * (last === null ? 1 : likenessFactor(item, last));
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    members.forEach((index, i) => add(into, index, (share * (weights[i] ?? 0)) / total));
  }
}

export function itemTitle(item: ShopItem): string {
  return `${BRANDS[item.brand]} ${STYLES[item.style]} ${TYPES[item.type]?.name}, ${COLOURS[item.colour]}`;
}

/** The fields of one line of the `items` file, without the id. */
export function itemText(item: ShopItem): {
  title: string;
  brand: string;
  categories: string;
  keywords: string;
  description: string;
} {
  const type = TYPES[item.type];
  const department = DEPARTMENTS[type?.department ?? 0];
  const use = department?.uses[item.style % department.uses.length] ?? '';
  return {
    title: itemTitle(item),
    brand: BRANDS[item.brand] ?? '',
    categories: `${department?.name} > ${type?.name}`,
    keywords: `${STYLES[item.style]} ${type?.name}`,
    description: `A ${STYLES[item.style]} ${type?.name} by ${BRANDS[item.brand]} in ${COLOURS[item.colour]}, made for ${use}.`,
  };
}

const BRAND_LIKENESS = exp(SHOP.sameBrandAsLast);
const STYLE_LIKENESS = exp(SHOP.sameStyleAsLast);
const BRAND_TASTE = exp(SHOP.favouriteBrand);
const STYLE_TASTE = exp(SHOP.favouriteStyle);

function tasteFactor(item: ShopItem, shopper: Shopper): number {
  return (shopper.brands.has(item.brand) ? BRAND_TASTE : 1) * (item.style === shopper.style ? STYLE_TASTE : 1);
}

function likenessFactor(item: ShopItem, last: ShopItem): number {
  return (item.brand === last.brand ? BRAND_LIKENESS : 1) * (item.style === last.style ? STYLE_LIKENESS : 1);
}

function followersOf(type: number, random: RandomSequence): number[] {
  const first = type - (type % TYPES_PER_DEPARTMENT);
  const step = (by: number): number => first + ((type - first + by) % TYPES_PER_DEPARTMENT);
  const others = TYPES.length - TYPES_PER_DEPARTMENT;
  const elsewhere = (first + TYPES_PER_DEPARTMENT + random.below(others)) % TYPES.length;
  return [step(1), step(2), type, elsewhere];
}

/** Items of the next type, those of like brand and style first in line. */
function companionsOf(shop: Shop, index: number, random: RandomSequence): number[] {
  const item = shop.items[index];
  const [next] = shop.followingTypes[item?.type ?? 0] ?? [];
  const members = shop.itemsOfType[next ?? 0] ?? [];
  const weights = members.map((member) => {
    const other = shop.items[member];
    return item === undefined || other === undefined ? 0 : likenessFactor(other, item);
  });
  const chosen: number[] = [];
  while (chosen.length < Math.min(SHOP.companionsPerItem, members.length)) {
    const drawn = random.weighted(weights);
    weights[drawn] = 0;
    chosen.push(members[drawn] ?? 0);
  }
  return chosen;
}

function shopperOf(seed: number, user: number, brandsOf: number[][]): Shopper {
  const random = new RandomSequence({ seed, site: RANDOM_SITES.shopUser, stream: user });
  const departments = [...random.permutation(DEPARTMENTS.length)].slice(0, SHOP.departmentWeights.length);
  const known = departments.flatMap((department) => brandsOf[department] ?? []);
  const brands = new Set<number>();
  while (brands.size < SHOP.favouriteBrands) brands.add(known[random.below(known.length)] ?? 0);
  return { departments, brands, style: random.below(STYLES.length) };
}

function eventsOfShopper(probabilities: NextEventProbabilities, user: number, recipe: SimulateRecipe): ShopEvent[] {
  const random = new RandomSequence({ seed: recipe.seed, site: RANDOM_SITES.shopEvents, stream: user });
  const spread = recipe.eventsPerUserMax - recipe.eventsPerUserMin + 1;
  const draw = random.uniform();
  const length = recipe.eventsPerUserMin + Math.floor(spread * draw * draw);
  const seen = new Set<number>();
  const events: ShopEvent[] = [];
  let time = START_SECONDS + random.below(YEAR_SECONDS);
  while (events.length < length) {
    const last = events.at(-1);
    const goesOn = random.uniform() < SHOP.sessionContinues;
    const continued = last !== undefined && goesOn ? probabilities.whenContinued(user, last.item, seen) : null;
    const distribution = continued ?? probabilities.whenOpened(user, seen);
    if (distribution === null) break;
    const item = random.weighted(distribution);
    const [least, most] =
      continued === null
        ? [SHOP.sessionPauseSecondsMin, SHOP.sessionPauseSecondsMax]
        : [SHOP.stepSecondsMin, SHOP.stepSecondsMax];
    if (last !== undefined) time += least + random.below(most - least);
    seen.add(item);
    events.push({ user, item, time });
  }
  return events;
}

/** In place: zero for seen items, sum 1 over the rest. Null when nothing is left. */
function normaliseUnseen(weights: Float64Array, seen: ReadonlySet<number>): Float64Array | null {
  for (const item of seen) weights[item] = 0;
  let total = 0;
  for (const weight of weights) total += weight;
  if (total === 0) return null;
  for (let i = 0; i < weights.length; i += 1) weights[i] = (weights[i] ?? 0) / total;
  return weights;
}

function add(into: Float64Array, index: number, weight: number): void {
  into[index] = (into[index] ?? 0) + weight;
}

function checkRecipe({ items, users, eventsPerUserMin, eventsPerUserMax }: SimulateRecipe): void {
  const fail = (expected: string, came: number): never => {
    throw new BadInputError(`simulate: expected ${expected}, got ${came}`);
  };
  if (!Number.isInteger(items) || items < 2 * TYPES.length)
    fail(`items ≥ ${2 * TYPES.length} (two of each type)`, items);
  if (!Number.isInteger(users) || users < 1) fail('users ≥ 1', users);
  if (!Number.isInteger(eventsPerUserMin) || eventsPerUserMin < 3) fail('eventsPerUserMin ≥ 3', eventsPerUserMin);
  if (!Number.isInteger(eventsPerUserMax) || eventsPerUserMax < eventsPerUserMin || eventsPerUserMax > items / 2) {
    fail(`eventsPerUserMax between ${eventsPerUserMin} and half of the items`, eventsPerUserMax);
  }
}
